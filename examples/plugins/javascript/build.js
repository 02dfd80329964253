// team_gate.js and the folder wit → team_gate.wasm. Of what the engine offers, all that would ask for more than a
// plugin gets is left out.

import { componentize } from "@bytecodealliance/componentize-js";
import { readFile, writeFile } from "node:fs/promises";

const { component } = await componentize(await readFile("team_gate.js", "utf8"), {
  witPath: "wit",
  worldName: "team-gate",
  disableFeatures: ["clocks", "fetch-event", "http", "random", "stdio"],
});
await writeFile("team_gate.wasm", component);
