// SPDX-License-Identifier: Apache-2.0

// Takes the pictures that the documentation shows, of the status page and of what a dashboard answers, drawn as a page
// in the file DASHBOARD: node pictures.js DIRECTORY DASHBOARD

import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { start } from './browser.js';

const [directory, dashboard] = process.argv.slice(2);
if (!directory || !dashboard) {
  console.error('usage: node pictures.js DIRECTORY DASHBOARD');
  process.exit(2);
}

const pictures = {
  'problems.png': { path: '/problems', colorScheme: 'light', viewport: { width: 1180, height: 720 } },
  'device.png': { device: true, colorScheme: 'light', viewport: { width: 1180, height: 800 } },
  'fleets.png': { path: '/fleets', colorScheme: 'light', viewport: { width: 1180, height: 600 } },
  'fleets-dark.png': { path: '/fleets', colorScheme: 'dark', viewport: { width: 1180, height: 600 } },
  'fleet.png': { path: '/fleets/acme/greenhouse', colorScheme: 'light', viewport: { width: 1180, height: 600 } },
  'fleet-phone.png': { path: '/fleets/acme/greenhouse', colorScheme: 'dark', viewport: { width: 390, height: 780 } },
};

await mkdir(directory, { recursive: true });
const { browser, addresses, stop } = await start('-plain', '-devices=2400', '-fleets=9');
try {
  for (const [file, { path, device, ...options }] of Object.entries(pictures)) {
    const page = await browser.newPage(options);
    await page.goto(addresses.good + (device ? `/devices/${addresses.device}` : path));
    await page.screenshot({ path: join(directory, file) });
    await page.close();
  }
  const page = await browser.newPage({ viewport: { width: 1180, height: 720 } });
  await page.goto(`file://${dashboard}`);
  await page.screenshot({ path: join(directory, 'dashboard.png') });
} finally {
  await stop();
}
