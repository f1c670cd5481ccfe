// SPDX-License-Identifier: Apache-2.0

// Writes what balena-semver says about many texts into the testdata of the exporter's package osversion.
import { writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { fileURLToPath } from 'node:url';
import { compare, getRevision, parse } from 'balena-semver';

const { version } = createRequire(import.meta.url)('balena-semver/package.json');

export const file = fileURLToPath(new URL('../../internal/balena/osversion/testdata/balena-semver.json', import.meta.url));

// Versions of balenaOS and of the supervisor, as devices and releases spell them.
const real = [
  'Resin OS 1.1.0 (fido)', 'Resin OS 1.24.0', 'Resin OS 1.26.1', 'Resin OS 2.0-beta.8', 'Resin OS 2.0.0-beta.8', 'Resin OS 2.0.0+rev5 (prod)', 'Resin OS 2.0.6+rev3 (dev)',
  'Resin OS 2.7.5+rev1', 'Resin OS 2.12.3+rev1', 'balenaOS 2.12.7+rev1', '2.12.7+rev1.prod', '2.12.7+rev1.dev', '2.12.7+rev2.prod', 'balenaOS 2.29.2+rev2', 'balenaOS 2.58.3+rev1',
  'balenaOS 2.113.33', 'balenaOS 2.115.18+rev4', '2.115.18+rev4', 'balenaOS 5.3.21', 'balenaOS 6.0.13+rev1', '6.0.13', 'balenaOS 6.0.24', 'balenaOS 6.5.10', '6.5.10', '6.5.9', '6.6.0-1722522222222',
  '6.6.0-1722522222223', '6.6.0-1722522222223+rev1', 'balenaOS 6.6.0', '2019.10.0.dev', '2019.10.0.prod', '2020.04.1.prod', '2021.01.0.dev', '2022.01.0', 'balenaOS 2022.1.0', '2022.7.0',
  '2023.10.0', 'balenaOS 2026.1.5', '2026.7.1', 'balenaOS 2026.7.1', '2026.7.10', '2026.10.0', '1.16.0', '2.8.3', '4.1.2', '6.4.2', '7.1.14', '7.25.3_logstream', '9.15.7', 'v10.6.27', '11.14.0',
  '12.11.0', '14.13.14', 'v14.2.1', '14.2.1', '16.12.0', '17.0.1-draft', '17.0.1-1657289934', '17.0.1', '17.1.0', '0.0.0', '0.0.0-1657289934', '', 'unknown', 'latest', 'Ubuntu 16.04.1 LTS', 'Raspbian 10',
];

// Each part with each other part, in turn with each name of the operating system.
const names = ['', 'Resin OS ', 'v', 'balenaOS ', 'Balena OS ', 'RESINOS', 'balena  os\t', 'resin os v'];
const numbers = ['2.0.0', '2.0.1', '2.0.10'];
const builds = [
  '', '-dev', '-prod', '-beta', '-beta.1', '-beta.2', '-beta.10', '-beta10.rev1', '-rc1.rev2', '-rc1+rev2', '-rc.1 (dev)', '.rev1', '+rev1', '+rev2', '+rev10', '+rev01', '_rev1', '.dev', '.prod', '.DEV', '+dev',
  '+DEV', ' (dev)', ' (prod)', '+rev1 (dev)', '+rev1 (prod)', '.rev1 (prod)', '_rev2 (dev)', '+rev1.dev', '+prod.rev1', '+dev.rev2', '+0ab12.dev', '.rev1.dev', '+rev', '+rev2.rev1', '+xrev2',
];
const combined = numbers.flatMap((number, i) => builds.map((build, j) => names[(i * builds.length + j) % names.length] + number + build));

// What is odd in the rules of balena-semver, of npm's semver, and of JavaScript.
const odd = [
  // Numbers and zeros
  '1', '1.2', '1.2.3.4', '1..3', '.1.2.3', '1.2.3.', '01.1.1', '1.01.1', '1.1.01', '1.01.01', '1.001.1', '1.0.0', '1.00.0', '1.0.00', '1.010.1', 'v01.1.1', 'Resin OS 01.1.1', '1.1.1-01', '1.1.1-0', '1.1.1-0a',
  '1.1.1-00', '1.1.1-a.01', '1.1.1-a-01', '1.1.1+rev007', '1.1.1+rev0', '1.1.1+rev00', '-1.1.1', '+1.1.1', '1.-1.1', '1.1.1e3', '1e3.1.1', '0x1.1.1', '\uff11.1.1',
  '9007199254740991.0.0', '9007199254740992.0.0', '0.9007199254740991.0', '0.9007199254740992.0', '0.0.9007199254740992', '99999999999999999999999.0.0',
  '1.1.1-9007199254740990', '1.1.1-9007199254740991', '1.1.1-9007199254740994', '1.1.1-99999999999999999999999', '1.1.1+rev9007199254740990', '1.1.1+rev9007199254740991',
  // Prereleases and builds
  '1.1.1-', '1.1.1+', '1.1.1-+rev1', '1.1.1-a', '1.1.1-a.', '1.1.1-a..b', '1.1.1-a.b', '1.1.1-a.1', '1.1.1-a.2', '1.1.1-a.10', '1.1.1-A', '1.1.1-a-b', '1.1.1--', '1.1.1---', '1.1.1-a+', '1.1.1-a+b+c', '1.1.1-a_b', '1.1.1-1', '1.1.1-2',
  '1.1.1-10', '1.1.1-1a', '1.1.1-x.7.z.92', '1.1.1+a..b', '1.1.1+a.dev.b', '1.1.1+devel', '1.1.1+rev1a', '1.1.1+Rev3', '1.1.1+rev1.rev2', '1.1.1+-', '1.1.1~1', '1.1.1-a.rev3', '1.1.1-4.rev3', '1.1.1.rev3.rev4', '1.1.rev3', '1.1.1-1.1.1.dev',
  '1.1.1.devel', '1.1.1.dev-2', '1.1.1.dev_2', '1.1.1.dev.rev2', '1.1.1.prod.dev', '1.1.1.PROD', '1.1.1_', '1.1.1__a', '1.1.1_a_b', '1.1.1_2.2.2_a', '1.1_a', '1.1.1-2.2.2_rev3',
  // Parentheses
  '1.1.1(dev)', '1.1.1  (dev)', '1.1.1\t(dev)', '1.1.1 (dev) (prod)', '1.1.1 (dev)  (prod)', '1.1.1 (dev) (rev2) (x)', '1.1.1+rev1 (a) (b)', '1.1.1 (my_build)', '1.1.1 ()', '1.1.1 (a-b)', '1.1.1 (a b)', '1.1.1-a (rev2)', '1.1.1 (dev) x', '(dev) 1.1.1', '1.1.1 (rev4)', '1.1.1+a (rev04)',
  // Names
  'vv1.1.1', 'vvv1.1.1', 'V1.1.1', 'v 1.1.1', '=1.1.1', 'v=1.1.1', 'balenaOS', 'balenaOS v1.1.1', 'vbalenaOS 1.1.1', 'balenaOS balenaOS 1.1.1', 'Resin Balena OS 1.1.1', 'balenabalenaosos 1.1.1', '1.1.1balenaOS', '1.1.1 balenaOS', '1.1.1 Resin OS 2', '1.1.1-balenaos.3', '1.1.1-resinosbalenaos',
  '1.balenaOS1.1', '1.1.1-2.2.balenaos3.dev', 'balena-os 1.1.1', 'b\u0430lenaOS 1.1.1', 're\u017finOS 1.1.1', 'balenaO\u017f 1.1.1', 'host OS 1.1.1', '1.1.1-\u212a', '1.1.1 (\u212a)', '1.1.1.deV',
  // White space
  '  1.1.1', '1.1.1  ', '\u00a01.1.1\ufeff', '\u00851.1.1', '\u180e1.1.1', '\u200b1.1.1', '1.1.1\u0000', '1.1.1\n', '\n1.1.1', '1.1.1\n(dev)', '1.1.1\nbalenaOS', '1.\n1.1', '1. 1.1', '1.1.1\u2028(dev)', 'balena\u3000OS\u00a01.1.1', 'balena\u0085OS 1.1.1', '1.1.1\u000bbalenaos', '1\n1.1.2 (dev)',
  // Lengths
  `1.1.1-${'a'.repeat(250)}`, `1.1.1-${'a'.repeat(251)}`, `1.1.1+${'a'.repeat(250)}`, `1.1.1-${'9'.repeat(250)}`, `1.1.1+${'9'.repeat(250)}`, `v1.1.1-${'a'.repeat(250)}`, `vv1.1.1-${'a'.repeat(249)}`, `balenaOS 1.1.1-${'a'.repeat(250)}`, `1.1.1-${'a.'.repeat(124)}1`,
  `1.1.1${' '.repeat(250)}balenaOS`, `1.1.1${' '.repeat(252)}balenaOS`, `1.1.1${'\u00a0'.repeat(251)}balenaOS`, `1.1.1${'\u00a0'.repeat(252)}balenaOS`, `1.1.1${' '.repeat(300)}(dev)`, `1.${'0'.repeat(300)}1.1`, `${' '.repeat(2000)}1.1.1`, 'a'.repeat(300), '1'.repeat(300), `1.1.1-${'\u{1f600}'.repeat(200)}`,
  // Other texts
  '\ud800', '1.1.1\udfff', '1.1.1-\u00e9', '<b>1.1.1</b>', '1.1.1;2', '../1.1.1', 'null', '1.x.1', '*', '>=1.1.1', '^1.1.1', '$1', '1.1.1-$1', '1.1.1-%s',
];

/** Returns the content of the file: for each valid text the parsed version and its order among the valid texts before. */
export function corpus() {
  const valid = [];
  const line = text => {
    const parsed = parse(text);
    if (!parsed) return JSON.stringify({ text });
    const before = valid.map(other => order(text, other)).join('');
    valid.push(text);
    return JSON.stringify({ text, version: canonical(parsed), order: before });
  };
  const texts = [...new Set([...real, ...combined, ...odd])];
  const content = `{"source": "balena-semver ${version}", "texts": [\n${texts.map(line).join(',\n')}\n]}\n`;
  return content.replace(/[^\n -~]/g, unit => `\\u${unit.charCodeAt().toString(16).padStart(4, '0')}`); // what one would not see
}

/** The version without what balena-semver does not compare. */
function canonical(parsed) {
  const revision = getRevision(parsed);
  const build = [...revision ? [`rev${revision}`] : [], ...isDev(parsed) ? ['dev'] : []];
  return [parsed.version, ...build.length > 0 ? [build.join('.')] : []].join('+');
}

/**
 * Whether a is older than b, newer or equal. If all that is compared is equal, balena-semver compares the texts by
 * localeCompare, so that a list of texts is always sorted in the same way. As versions these are equal.
 */
function order(a, b) {
  if (canonical(parse(a)) === canonical(parse(b))) return '=';
  return { '-1': '<', 0: '=', 1: '>' }[compare(a, b)];
}

const isDev = parsed => parsed.build.includes('dev');

if (process.argv[1] === fileURLToPath(import.meta.url)) writeFileSync(file, corpus());
