// SPDX-License-Identifier: Apache-2.0

// The program in the simulator's README runs unchanged with the simulator of the demo.
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { readFileSync, rmSync, writeFileSync } from 'node:fs';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { start } from './simulator.js';

const readme = readFileSync(fileURLToPath(new URL('../../cmd/balena-simulator/README.md', import.meta.url)), 'utf8');
const demo = 'http://127.0.0.1:8085';

for (const edition of ['cloud', 'openbalena']) {
  test(`the program of the README lists fleets and devices of the ${edition} edition`, async t => {
    const [, program] = /```js\n([^]*?)```/.exec(readme);
    assert.ok(program.trim().split('\n').length <= 10, 'it has more than ten lines');
    assert.ok(program.includes(demo) && program.includes("'demo'"), 'it does not use the address and token of the demo');

    const { url, stop } = await start(edition, '--devices=1000', '--fleets=10');
    t.after(stop);
    // In the directory of this test, where its import finds balena-sdk.
    const file = fileURLToPath(new URL(`readme.${edition}.tmp.mjs`, import.meta.url));
    writeFileSync(file, program.replace(demo, url));
    t.after(() => rmSync(file));

    const { stdout } = await promisify(execFile)(process.execPath, [file]);
    const lines = stdout.trim().split('\n').map(line => /^(.+\/.+): (\d+) of (\d+) devices are online$/.exec(line) ?? assert.fail(`it says ${line}`));
    assert.ok(lines.some(([, fleet, online]) => fleet === 'acme/greenhouse' && online > 0), stdout);
    assert.equal(lines.length, 10);
    assert.equal(lines.reduce((sum, [, , , devices]) => sum + Number(devices), 0), 1000);
  });
}
