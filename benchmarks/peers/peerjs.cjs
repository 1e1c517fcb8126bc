// PeerJS's own server, `peer` on npm, which the first argument's folder has in its node_modules. It prints its port.
"use strict";

const { createRequire } = require("node:module");
const { resolve } = require("node:path");

const { PeerServer } = createRequire(`${resolve(process.argv[2])}/`)("peer");

// As for the others: nobody is ended for being silent, since heartbeats are not what is measured.
const options = { host: "127.0.0.1", port: 0, path: "/", concurrent_limit: 100_000, alive_timeout: 3_600_000 };
PeerServer(options, (server) => console.log(server.address().port));
process.on("SIGTERM", () => process.exit(0));
