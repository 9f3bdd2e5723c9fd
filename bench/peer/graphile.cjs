// graphile-worker on Postgres: the same roles as the other peers', see __init__.py and roles.py; __main__.py starts it.
// process.hrtime reads CLOCK_MONOTONIC, as the others do.
"use strict";
const { Logger, WorkerPreset, makeWorkerUtils, run, runOnce } = require("graphile-worker");

const SETTINGS = {
  drain: "localQueue of 500, 24 concurrent jobs, completions batched",
  bulk: "addJobs, batches of 1,000",
  pickup: "4 concurrent jobs, LISTEN, no localQueue",
};
const WARM_UP = 100;
const [role, url, total] = [process.argv[2], process.argv[3], Number(process.argv[4])];

const say = (kind, fields) => process.stdout.write(JSON.stringify({ kind, ...fields }) + "\n");
const now = () => Number(process.hrtime.bigint());
const pause = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));

let line = () => {};
process.stdin.on("data", () => line());
process.stdin.on("end", () => process.exit(0));

const logger = new Logger(() => (level, message) => {
  if (level === "error" || level === "warning") console.error(message); // Standard output is for the bench.
});

function preset(worker) {
  return { extends: [WorkerPreset], worker: { connectionString: url, logger, ...worker } };
}

let began = null;
const moments = [];
const taskList = {
  add: async ({ x, y }) => {
    moments.push([x, now()]);
    began ??= moments[0][1];
    return x + y;
  },
};

async function fill(utils, count) {
  const size = 1000; // 10,000 is slower.
  for (let start = 0; start < count; start += size) {
    const specs = [];
    for (let x = start; x < Math.min(count, start + size); x++) specs.push({ identifier: "add", payload: { x, y: 2 } });
    await utils.addJobs(specs);
  }
}

const roles = {
  async drain(utils) {
    await fill(utils, total);
    const go = new Promise((resolve) => (line = resolve));
    say("filled");
    await go;
    // As its own performance test does.
    const batched = { localQueue: { size: 500, refetchDelay: { durationMs: 10 } }, completeJobBatchDelay: 0, failJobBatchDelay: 0 };
    await runOnce({ preset: preset({ concurrentJobs: 24, maxPoolSize: 25, ...batched }) }, taskList);
    const seconds = (now() - began) / 1e9;
    const { rows } = await utils.withPgClient((client) => client.query("SELECT count(*)::int AS unfinished FROM graphile_worker.jobs"));
    if (rows[0].unfinished || moments.length !== total) throw new Error(`${rows[0].unfinished} of ${total} jobs are left`);
    return seconds;
  },

  async bulk(utils) {
    await fill(utils, 1);
    const start = now();
    await fill(utils, total);
    return (now() - start) / 1e9;
  },

  async single(utils) {
    for (let x = 0; x < WARM_UP; x++) await utils.addJob("add", { x, y: 2 });
    const start = now();
    for (let x = 0; x < total; x++) await utils.addJob("add", { x, y: 2 });
    return (now() - start) / 1e9;
  },

  async work() {
    line = () => say("moments", { moments });
    await run({ preset: preset({ concurrentJobs: 4 }), taskList });
    say("ready");
  },

  async produce(utils) {
    const called = [];
    for (let x = 0; x < total; x++) {
      await pause(x ? 40 + 20 * Math.random() : 1000);
      called.push([x, now()]);
      await utils.addJob("add", { x, y: 2 });
    }
    say("called", { moments: called });
  },
};

async function main() {
  say("settings", { words: SETTINGS[role === "work" ? "pickup" : role] ?? "" });
  const utils = await makeWorkerUtils({ preset: preset({}) });
  await utils.migrate();
  const seconds = await roles[role](utils);
  if (seconds !== undefined) say("measured", { rate: total / seconds });
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
