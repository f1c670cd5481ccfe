// SPDX-License-Identifier: Apache-2.0

// What the test and the pictures share: a browser, and the page in three states.

import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { chromium } from 'playwright-core';

// patience is how long, in milliseconds, a browser may take for what takes it a second on an idle machine.
export const patience = 8 * 60 * 1000;

const repository = new URL('../..', import.meta.url).pathname;

// start returns the browser, the addresses of the page in its states, and a function that ends both.
export async function start(...flags) {
  execFileSync('go', ['build', '-buildvcs=false', '-o', 'bin/statuspage', './test/statuspage'], { cwd: repository, stdio: 'inherit' });
  const server = spawn('bin/statuspage', flags, { cwd: repository, stdio: ['pipe', 'pipe', 'inherit'] });
  const ended = once(server, 'exit');
  const line = await Promise.race([
    once(createInterface(server.stdout), 'line').then(([line]) => line),
    ended.then(() => { throw new Error('the server of the status page did not start'); }),
  ]);
  const browser = await chromium.launch({
    executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
    timeout: patience,
    chromiumSandbox: process.getuid() !== 0, // Chromium has no sandbox for root, as whom containers of CI run
  });
  const stop = async () => {
    await browser.close();
    server.stdin.end();
    await ended;
  };
  return { browser, addresses: JSON.parse(line), stop };
}
