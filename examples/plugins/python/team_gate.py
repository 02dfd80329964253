"""Lets only the teams through that the configuration names."""

import json

from componentize_py_types import Err
from wit_world import exports
from wit_world.exports.lifecycle import ConfigProblem
from wit_world.exports.request_filter import Verdict, Verdict_Next, Verdict_Respond
from wit_world.imports import log
from wit_world.imports.types import LocalResponse, Request

teams: list[str] = []


class Lifecycle(exports.Lifecycle):
    def configure(self, config: str) -> None:
        global teams
        table = json.loads(config)
        allowed = table.pop("allowed", None)
        problems = [ConfigProblem(key, "no such key; expected `allowed`") for key in table]
        if not isinstance(allowed, list) or not all(isinstance(team, str) for team in allowed):
            problems.append(ConfigProblem("allowed", "expected a list of teams"))
        if problems:
            raise Err(problems)
        teams = allowed


class RequestFilter(exports.RequestFilter):
    def on_request(self, req: Request) -> Verdict:
        with req.headers() as headers:
            value = headers.get("x-team")
        team = value.decode("utf-8", "replace") if value is not None else None
        if team in teams:
            return Verdict_Next()
        log.emit(log.Level.INFO, f"refused team {team}")
        headers = [("content-type", b"text/plain")]
        return Verdict_Respond(LocalResponse(403, headers, b"unknown team\n", "unknown-team"))
