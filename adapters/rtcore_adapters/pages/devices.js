// The camera, the microphone and the screen of whoever sits in front of this page: one track of each, or none.

// What several people can send to each of the others at once.
const CAMERA = { width: { ideal: 640 }, height: { ideal: 360 }, frameRate: { ideal: 24, max: 30 } };
const REQUEST = { camera: { video: CAMERA }, microphone: { audio: true } };
const KIND = { camera: "video", microphone: "audio" };

/** Event "change": what is sent has changed, by our own doing or by that of the browser. */
export class Devices extends EventTarget {
  camera = null;
  microphone = null;
  screen = null;

  /** The track to send for "audio" or "video", or null: the screen goes before the camera. */
  track(kind) {
    return kind === "audio" ? this.microphone : this.screen ?? this.camera;
  }

  /** What others should be told: {microphone, camera, screen}, whether anything is heard or seen of each. */
  get sending() {
    const { microphone, camera, screen } = this;
    return { microphone: microphone?.enabled === true, camera: camera !== null, screen: screen !== null };
  }

  /** Switch on what is wanted, of "camera" and "microphone"; returns a line for each that there is not. */
  async start(wanted) {
    if (!wanted.length) return [];
    let refusals = [];
    try {
      // Together, so that people are asked once.
      this.#take(await ask(Object.assign({}, ...wanted.map((device) => REQUEST[device]))));
    } catch (error) {
      refusals = wanted.length === 1 ? [explain(wanted[0], error)] : await this.#startEach(wanted, error);
    }
    this.#changed();
    return refusals;
  }

  async #startEach(wanted, refusal) {
    const refusals = [];
    for (const device of wanted) {
      try {
        // Who has just said no is not asked again, but may have allowed one of them before.
        if (refusal.name === "NotAllowedError" && !(await isGranted(device))) throw refusal;
        this.#take(await ask(REQUEST[device]));
      } catch (error) {
        refusals.push(explain(device, error));
      }
    }
    return refusals;
  }

  /** Switch "camera" or "microphone"; rejects with an Error whose message is for people. */
  async set(device, on) {
    if (device === "microphone" && this.microphone) {
      // It is kept, for people want to be heard at once when they go on.
      this.microphone.enabled = on;
    } else if (on && !this[device]) {
      try {
        this.#take(await ask(REQUEST[device]));
      } catch (error) {
        throw new Error(explain(device, error));
      }
    } else if (!on && this[device]) {
      // So that its light goes out.
      this.#drop(device);
    }
    this.#changed();
  }

  /** Share the screen, or end that; rejects as `set` does. Resolves too if nothing was chosen. */
  async share(on) {
    if (on && !this.screen) {
      let stream;
      try {
        if (!navigator.mediaDevices?.getDisplayMedia) throw new DOMException("", "NotSupportedError");
        stream = await navigator.mediaDevices.getDisplayMedia({ video: true });
      } catch (error) {
        if (error.name === "NotAllowedError") return;
        throw new Error(explain("screen", error));
      }
      this.#keep("screen", stream.getVideoTracks()[0]);
    } else if (!on) {
      this.#drop("screen");
    }
    this.#changed();
  }

  /** Switch everything off. */
  stop() {
    for (const device of ["camera", "microphone", "screen"]) this.#drop(device);
    this.#changed();
  }

  #take(stream) {
    for (const device of ["camera", "microphone"]) {
      const [track] = stream.getTracks().filter(({ kind }) => kind === KIND[device]);
      if (track) this.#keep(device, track);
    }
  }

  #keep(device, track) {
    // Somebody may have been faster, or have pressed twice.
    this.#drop(device);
    this[device] = track;
    track.addEventListener("ended", () => {
      if (this[device] !== track) return;
      this[device] = null;
      this.#changed();
    });
  }

  #drop(device) {
    this[device]?.stop();
    this[device] = null;
  }

  #changed() {
    this.dispatchEvent(new Event("change"));
  }
}

async function ask(constraints) {
  // Outside of https: and localhost there is nothing to be asked.
  if (!navigator.mediaDevices?.getUserMedia) throw new DOMException("", "SecurityError");
  return navigator.mediaDevices.getUserMedia(constraints);
}

async function isGranted(device) {
  try {
    return (await navigator.permissions.query({ name: device })).state === "granted";
  } catch {
    return false; // not every browser tells
  }
}

function explain(device, { name, message }) {
  switch (name) {
    case "NotAllowedError":
      return `The ${device} is blocked. Allow it for this page in your browser to switch it on.`;
    case "NotFoundError":
    case "OverconstrainedError":
      return `No ${device} was found.`;
    case "NotReadableError":
    case "AbortError":
      return `The ${device} does not start. Another program may be using it.`;
    case "SecurityError":
      return `Browsers give the ${device} only to pages from https: or from this computer.`;
    case "NotSupportedError":
      return `This browser cannot share the ${device}.`;
  }
  return `The ${device} does not start: ${message || name}`;
}
