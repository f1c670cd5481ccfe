// Takes the pictures of the status page that the documentation shows: node pictures.js DIRECTORY

import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { start } from './browser.js';

const directory = process.argv[2];
if (!directory) {
  console.error('usage: node pictures.js DIRECTORY');
  process.exit(2);
}

const pictures = {
  'fleets.png': { path: '/fleets', colorScheme: 'light', viewport: { width: 1180, height: 600 } },
  'fleets-dark.png': { path: '/fleets', colorScheme: 'dark', viewport: { width: 1180, height: 600 } },
  'fleet.png': { path: '/fleets/acme/greenhouse', colorScheme: 'light', viewport: { width: 1180, height: 600 } },
  'fleet-phone.png': { path: '/fleets/acme/greenhouse', colorScheme: 'dark', viewport: { width: 390, height: 780 } },
};

await mkdir(directory, { recursive: true });
const { browser, addresses, stop } = await start('-plain', '-devices=2400', '-fleets=9');
try {
  for (const [file, { path, ...options }] of Object.entries(pictures)) {
    const page = await browser.newPage(options);
    await page.goto(addresses.good + path);
    await page.screenshot({ path: join(directory, file) });
    await page.close();
  }
} finally {
  await stop();
}
