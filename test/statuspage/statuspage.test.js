// SPDX-License-Identifier: Apache-2.0

// Tests of the status page in a browser: accessibility, keyboard navigation and hostile names. They need Chromium
// (CHROMIUM, by default /usr/bin/chromium) and Go. Run them with npm test.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { after, before, describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { patience, start } from './browser.js';

const axe = readFileSync(fileURLToPath(import.meta.resolve('axe-core')), 'utf8');

let browser, addresses, stop;
before(async () => { ({ browser, addresses, stop } = await start('-devices=1200', '-fleets=12')); });
after(() => stop?.());

// A window of 1280 pixels is 640 CSS pixels wide at a zoom of 200 %, and 320 at 400 %.
const sizes = { wide: { width: 1280, height: 800 }, zoomed: { width: 640, height: 400 }, phone: { width: 390, height: 844 }, narrowest: { width: 320, height: 640 } };

// pages are all kinds of pages.
const pages = {
  'landing page': () => addresses.good + '/',
  'landing page, refresh failing': () => addresses.failing + '/',
  'landing page, no data': () => addresses.empty + '/',
  'all fleets': () => addresses.good + '/fleets',
  'all fleets, refresh failing': () => addresses.failing + '/fleets',
  'no data': () => addresses.empty + '/fleets',
  'a fleet': () => addresses.good + '/fleets/acme/greenhouse',
  'a fleet filtered': () => addresses.good + '/fleets/acme/greenhouse?status=operational&tag=site%3D&sort=-name',
  'the last page of a fleet': () => addresses.good + '/fleets/acme/greenhouse?before=end',
  'a fleet without matching devices': () => addresses.good + '/fleets/acme/greenhouse?status=lost',
  'no such fleet': () => addresses.good + '/fleets/acme/nothing',
  'problems': () => addresses.good + '/problems',
  'problems, refresh failing': () => addresses.failing + '/problems?hold=1',
  'devices with one problem': () => addresses.good + '/problems?problem=BalenaDevicesLost&sort=name',
  'a search': () => addresses.good + '/search?q=balenaos',
  'a search without results': () => addresses.good + '/search?q=nothing+at+all',
  'an empty search': () => addresses.good + '/search',
  'a device': () => addresses.good + '/devices/' + addresses.device,
  'no such device': () => addresses.good + '/devices/nothing',
};

// open opens a page, and collects console messages, errors, dialogs and further requests, none of which should occur.
async function open(t, address, options = {}) {
  const context = await browser.newContext({ viewport: sizes.wide, ...options });
  t.after(() => context.close());
  context.setDefaultTimeout(patience);
  const page = await context.newPage();
  page.complaints = [];
  page.on('console', message => {
    // The status of the page itself may be 404 or 503.
    if (!message.text().startsWith('Failed to load resource')) page.complaints.push(message.text());
  });
  page.on('pageerror', error => page.complaints.push(String(error)));
  page.on('dialog', dialog => { page.complaints.push('dialog ' + dialog.message()); dialog.dismiss(); });
  page.on('request', request => { if (!request.isNavigationRequest()) page.complaints.push('request of ' + request.url()); });
  await page.goto(address);
  return page;
}

describe('axe finds no violations', () => {
  for (const [name, address] of Object.entries(pages)) {
    for (const colorScheme of ['light', 'dark']) {
      for (const size of colorScheme === 'light' ? ['wide', 'phone', 'zoomed'] : ['wide', 'phone']) {
        test(`${name}, ${colorScheme}, ${size}`, async t => {
          const page = await open(t, address(), { colorScheme, viewport: sizes[size] });
          await page.evaluate(axe);
          const result = await page.evaluate(() => window.axe.run(document, {
            runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa', 'best-practice'],
          }));
          const found = result.violations.map(v => `${v.id}: ${v.help}: ${v.nodes.map(n => n.html).slice(0, 3).join(' ')}`);
          assert.deepEqual(found, []);
          assert.ok(result.passes.some(p => p.id === 'color-contrast'), 'axe did not check the contrast');
        });
      }
    }
  }
});

describe('pages do not scroll horizontally', () => {
  for (const [name, address] of Object.entries(pages)) {
    for (const size of ['narrowest', 'zoomed']) {
      test(`${name}, ${size}`, async t => {
        const page = await open(t, address(), { viewport: sizes[size] });
        assert.equal(await page.evaluate(() => document.documentElement.scrollWidth), sizes[size].width);
      });
    }
  }
});

describe('colors', () => {
  // WCAG 1.4.11 requires a contrast of 3:1 between the parts of a bar and the page.
  for (const colorScheme of ['light', 'dark']) {
    test(`of bars have enough contrast, ${colorScheme}`, async t => {
      const page = await open(t, addresses.good + '/fleets', { colorScheme });
      const ratios = await page.evaluate(() => {
        const luminance = color => {
          const [r, g, b] = color.match(/\d+/g).map(n => n / 255).map(c => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
          return 0.2126 * r + 0.7152 * g + 0.0722 * b;
        };
        const back = luminance(getComputedStyle(document.body).backgroundColor);
        const statuses = ['operational', 'updating', 'configuring', 'post-provisioning', 'inactive', 'unknown', 'reduced-functionality', 'disconnected'];
        return statuses.map(status => {
          const mark = document.createElement('i');
          mark.className = status;
          document.querySelector('main').append(mark);
          const l = luminance(getComputedStyle(mark).backgroundColor);
          return [status, (Math.max(l, back) + 0.05) / (Math.min(l, back) + 0.05)];
        });
      });
      assert.deepEqual(ratios.filter(([, ratio]) => !(ratio >= 3)), []);
    });
  }
});

describe('marks', () => {
  for (const name of ['all fleets', 'a fleet', 'problems', 'devices with one problem', 'a device']) {
    test(`of ${name} are small squares with a color`, async t => {
      const page = await open(t, pages[name]());
      const marks = await page.$$eval('main i', all => all.map(mark => {
        const { width, height } = mark.getBoundingClientRect();
        return { class: mark.className, width, height, color: getComputedStyle(mark).backgroundColor };
      }));
      assert.ok(marks.length > 0);
      assert.deepEqual(marks.filter(m => m.width !== m.height || m.width > 16 || m.color === 'rgba(0, 0, 0, 0)'), []);
    });
  }
});

describe('keyboard', () => {
  // focused describes the focused element: whether it is visible, and whether it has a focus outline.
  const focused = page => page.evaluate(() => {
    const element = document.activeElement;
    if (element === document.body) return null;
    const box = element.getClientRects()[0];
    const top = document.elementFromPoint(box.x + box.width / 2, box.y + box.height / 2);
    const style = getComputedStyle(element);
    return { address: element.getAttribute('href') ?? element.getAttribute('name') ?? element.textContent, seen: element.contains(top), outline: style.outlineStyle === 'solid' && parseFloat(style.outlineWidth) >= 2 };
  });

  for (const [key, order] of [['Tab', list => list], ['Shift+Tab', list => list.reverse()]]) {
    for (const name of ['landing page', 'all fleets', 'a fleet filtered', 'problems', 'a search', 'a device', 'no data']) {
      test(`${key} visits all links and fields of ${name}, in order and visibly`, async t => {
        const page = await open(t, pages[name]());
        const links = order(await page.locator('a, input:not([type=hidden]), select, button').evaluateAll(all =>
          all.map(e => e.getAttribute('href') ?? e.getAttribute('name') ?? e.textContent)));
        assert.ok(links.length > 0);
        for (const address of links) {
          await page.keyboard.press(key);
          assert.deepEqual(await focused(page), { address, seen: true, outline: true });
        }
      });
    }
  }

  test('navigates from the landing page to a list of devices and back', async t => {
    const page = await open(t, pages['landing page'](), { javaScriptEnabled: false });
    const heading = () => page.locator('h1').textContent();
    await page.getByRole('main').getByRole('link', { name: 'Fleets' }).press('Enter');
    assert.equal(await heading(), 'Fleets');
    await page.getByRole('link', { name: 'acme/greenhouse', exact: true }).press('Enter');
    assert.equal(await heading(), 'acme/greenhouse');
    await page.getByRole('link', { name: /^operational/ }).press('Enter');
    await page.getByRole('link', { name: 'Next' }).press('Enter');
    const caption = () => page.locator('caption').first().textContent();
    assert.match(await caption(), /^101 to 200 of .* operational devices, worst first$/);
    await page.getByRole('columnheader', { name: 'OS' }).getByRole('link').press('Enter');
    assert.match(await caption(), /^1 to 100 of .* operational devices, sorted by os$/);
    assert.equal(await page.getByRole('columnheader', { name: 'OS' }).getAttribute('aria-sort'), 'ascending');
    await page.locator('tbody th a').first().press('Enter');
    assert.ok(await page.getByRole('heading', { name: 'State' }).isVisible());
    await page.getByRole('link', { name: 'Fleets' }).press('Enter');
    assert.equal(await heading(), 'Fleets');
  });

  test('filters a list by the form, and keeps the other filters', async t => {
    const page = await open(t, pages['a fleet'](), { javaScriptEnabled: false });
    await page.getByRole('link', { name: /^operational/ }).press('Enter');
    const release = page.getByRole('combobox', { name: 'Release' });
    const value = await release.locator('option').nth(1).getAttribute('value');
    await release.focus();
    await page.keyboard.press('ArrowDown');
    await page.getByRole('button', { name: 'Filter' }).press('Enter');
    const filters = new URL(page.url()).searchParams;
    assert.equal(filters.get('release'), value);
    assert.equal(filters.get('status'), 'operational');
    await page.getByRole('link', { name: 'Remove all filters' }).press('Enter');
    assert.equal(new URL(page.url()).search, '');
  });

  test('redirects a search to its only result', async t => {
    const page = await open(t, pages['landing page'](), { javaScriptEnabled: false });
    const field = page.getByRole('searchbox', { name: 'Search' });
    await field.fill(addresses.device.slice(0, 12));
    await field.press('Enter');
    assert.equal(page.url(), `${addresses.good}/devices/${addresses.device}`);
    assert.ok((await page.locator('main').textContent()).includes(addresses.device));
    await field.fill('balenaos');
    await page.getByRole('button', { name: 'Search' }).press('Enter');
    assert.match(await page.locator('caption').first().textContent(), /^1 to 100 of .* devices, best match first$/);
    assert.equal(await field.inputValue(), 'balenaos');
  });

  test('stops reloading a page and the pages that it links to', async t => {
    const page = await open(t, pages['problems'](), { javaScriptEnabled: false });
    const refreshHeader = async () => (await (await page.reload()).allHeaders()).refresh;
    assert.equal(await refreshHeader(), '60');
    await page.getByRole('link', { name: 'Stop reloading' }).press('Enter');
    assert.equal(await refreshHeader(), undefined);
    await page.locator('tbody th a').first().press('Enter');
    assert.equal(await refreshHeader(), undefined);
    await page.getByRole('link', { name: 'Reload every' }).press('Enter');
    assert.equal(await refreshHeader(), '60');
  });
});

describe('hostile names', () => {
  for (const [name, address] of Object.entries(pages)) {
    test(`do no harm to ${name}`, async t => {
      const page = await open(t, address());
      assert.deepEqual(page.complaints, []);
      assert.notEqual(await page.title(), 'harmed');
      assert.equal(await page.locator('script, img').count(), 0);
      assert.ok(await page.locator('h1').isVisible());
    });
  }

  test('lead to the page of the fleet that has one', async t => {
    const page = await open(t, pages['all fleets']());
    const link = page.getByRole('rowheader', { name: 'acme/"><script>' }).getByRole('link');
    const name = await link.textContent();
    await link.click();
    assert.equal(await page.locator('h1').textContent(), name);
    await page.getByRole('link', { name: 'Fleets' }).click();
    assert.equal(await page.locator('h1').textContent(), 'Fleets');
    assert.deepEqual(page.complaints, []);
  });

  test('do not lead out of the pages', async t => {
    const page = await open(t, pages['all fleets']());
    await page.getByRole('link', { name: '../../-/healthy', exact: true }).click();
    assert.equal(await page.locator('h1').textContent(), '../../-/healthy');
    assert.equal(page.url(), addresses.good + '/fleets/~../~../-/healthy');
    await page.getByRole('link', { name: 'balena-exporter' }).click();
    assert.equal(page.url(), addresses.good + '/');
    assert.deepEqual(page.complaints, []);
  });

  test('do not turn the text around them', async t => {
    const page = await open(t, pages['a fleet']());
    assert.equal(await page.locator('tbody th bdi').first().evaluate(e => getComputedStyle(e).unicodeBidi), 'isolate');
  });
});

describe('tables stay tables for screen readers', () => {
  for (const [size, viewport] of Object.entries(sizes)) {
    test(size, async t => {
      const page = await open(t, pages['all fleets'](), { viewport });
      const client = await page.context().newCDPSession(page);
      const { nodes } = await client.send('Accessibility.getFullAXTree');
      const count = role => nodes.filter(n => !n.ignored && n.role?.value === role).length;
      assert.deepEqual(
        { table: count('table'), row: count('row'), columnheader: count('columnheader'), rowheader: count('rowheader'), cell: count('cell') },
        { table: 1, row: 13, columnheader: 8, rowheader: 12, cell: 84 });
    });
  }
});
