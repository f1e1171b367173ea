// imd.js plays the scenarios that the Python core plays, too.
import { readdirSync, readFileSync } from "node:fs";
import { test } from "node:test";
import { Player } from "./play.mjs";

const folder = new URL("../scenarios/", import.meta.url);
for (const file of readdirSync(folder).filter((name) => name.endsWith(".json")).sort()) {
  for (const scenario of JSON.parse(readFileSync(new URL(file, folder)))) {
    test(`${file}: ${scenario.name}`, () => new Player(scenario).play());
  }
}
