// The exporter asks balenaCloud for nothing that balena-sdk does not declare, but for a few exceptions.
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { undeclared } from './uses.js';

const list = JSON.parse(execFileSync('go', ['run', './exporter'], { cwd: fileURLToPath(new URL('.', import.meta.url)), encoding: 'utf8' }));

test('all that the exporter asks for is declared', () => {
  assert.deepEqual(undeclared(list.uses, list.exceptions), []);
});

test('all kinds of uses are found', () => {
  for (const [resource, field, use] of [
    ['device', 'is_frozen', 'select'],
    ['device', 'modified_at', 'filter'],
    ['device', 'image_install', 'filter'],
    ['image_install', 'status', 'filter'],
    ['image_install', 'modified_at', 'filter'],
    ['service', 'service_name', 'select'],
    ['application', 'owns__device', 'expand'],
    ['release', 'created_at', 'orderby'],
  ]) {
    assert.ok(list.uses.some(u => u.resource === resource && u.field === field && u.use === use), `${resource}.${field} (${use})`);
  }
});

test('each exception says why, and what is done when the field is refused', () => {
  for (const e of list.exceptions) assert.ok(e.reason.endsWith('.') && e.fallback.endsWith('.'), JSON.stringify(e));
});
