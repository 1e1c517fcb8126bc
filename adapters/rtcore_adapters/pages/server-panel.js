// What the server says of itself, and how long it takes to answer.

import { byId, element } from "./dom.js";

const SPARKLINE_POINTS = 40;
const milliseconds = (value) => `${value < 10 ? value.toFixed(1) : Math.round(value)} ms`;

export class ServerPanel {
  #connection;
  #inWords;
  #roundTrips = [];

  /** `inWords`: a function that returns an error as people are told it. */
  constructor(connection, { inWords }) {
    this.#connection = connection;
    this.#inWords = inWords;
  }

  async refresh() {
    const connection = this.#connection;
    try {
      await this.#showStats();
    } catch (error) {
      if (connection.state !== "open") return;
      byId("stats").replaceChildren();
      byId("stats-empty").textContent = this.#inWords(error);
      byId("stats-empty").hidden = false;
    }
    try {
      await this.#ping(); // last, so that it waits behind nothing of ours
    } catch {
      // The state of the connection says what is wrong.
    }
  }

  async #ping() {
    const started = performance.now();
    await this.#connection.command("ping");
    const taken = performance.now() - started;
    const roundTrips = this.#roundTrips;
    roundTrips.push(taken);
    if (roundTrips.length > SPARKLINE_POINTS) roundTrips.shift();
    const least = Math.min(...roundTrips);
    const most = Math.max(...roundTrips);
    const shown = roundTrips.length > 1 ? roundTrips : [taken, taken];
    const height = 36 / (1.2 * most);
    const points = shown.map((value, index) => `${(index * 200) / (shown.length - 1)},${40 - value * height}`);
    byId("sparkline").firstElementChild.setAttribute("points", points.join(" "));
    byId("latency").textContent = milliseconds(taken);
    byId("latency-range").textContent =
      roundTrips.length > 1 ? `${milliseconds(least)} to ${milliseconds(most)}, last ${roundTrips.length}` : milliseconds(taken);
  }

  async #showStats() {
    const stats = await this.#connection.command("get_connection_stats");
    const scalars = Object.entries(stats).filter(([, value]) => value !== null && typeof value !== "object");
    byId("stats").replaceChildren(
      ...scalars.map(([name, value]) =>
        element(
          "div",
          { "data-stat": name },
          element("dt", {}, name.replaceAll("_", " ")),
          element("dd", {}, typeof value === "number" ? value.toLocaleString(undefined, { maximumFractionDigits: 3 }) : String(value)),
        ),
      ),
    );
    byId("stats-empty").hidden = scalars.length > 0;
  }
}
