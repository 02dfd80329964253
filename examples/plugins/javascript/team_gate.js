// Lets only the teams through that the configuration names.

import { emit } from "vers:gateway/log@0.1.0";

const bytes = new TextEncoder();
const text = new TextDecoder();

let teams = [];

export const lifecycle = {
  configure(config) {
    const { allowed, ...others } = JSON.parse(config);
    const problems = Object.keys(others).map((path) => ({ path, message: "no such key; expected `allowed`" }));
    if (!Array.isArray(allowed) || !allowed.every((team) => typeof team === "string")) {
      problems.push({ path: "allowed", message: "expected a list of teams" });
    }
    if (problems.length > 0) throw problems;
    teams = allowed;
  },
};

export const requestFilter = {
  onRequest(request) {
    const value = request.headers().get("x-team");
    const team = value && text.decode(value);
    if (teams.includes(team)) return { tag: "next" };
    emit("info", `refused team ${team}`);
    const headers = [["content-type", bytes.encode("text/plain")]];
    const body = bytes.encode("unknown team\n");
    return { tag: "respond", val: { status: 403, headers, body, reason: "unknown-team" } };
  },
};
