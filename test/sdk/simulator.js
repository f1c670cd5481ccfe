// SPDX-License-Identifier: Apache-2.0

// Runs bin/balena-simulator for a test.
import { spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';

const program = fileURLToPath(new URL('../../bin/balena-simulator', import.meta.url));

/** The directory with the recorded content of a real server. */
export const recorded = fileURLToPath(new URL('../../internal/simulator/testdata/dataset/', import.meta.url));

/** The token that the simulators accept. */
export const token = 'demo';

/** Starts a simulator of the edition whose devices do not change. Resolves to its URL and a function that stops it. */
export async function start(edition, ...args) {
  const child = spawn(program, [`--edition=${edition}`, `--token=${token}`, '--listen-address=127.0.0.1:0', '--tick-interval=0', ...args], { stdio: ['ignore', 'ignore', 'pipe'] });
  const exited = new Promise((resolve, reject) => child.once('error', reject).once('exit', resolve));
  const said = [];
  const url = new Promise(resolve => createInterface(child.stderr).on('line', line => {
    said.push(line);
    const found = /\burl=(\S+)/.exec(line);
    if (found) resolve(found[1]);
  }));
  const stop = async () => {
    child.kill();
    await exited;
  };
  const first = await Promise.race([url, exited.then(() => undefined)]);
  if (!first) throw new Error(`${program} ended: ${said.join('\n')}`);
  return { url: first, stop };
}
