// SPDX-License-Identifier: Apache-2.0

// The exporter requests only fields that balena-sdk declares, with a few exceptions.
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { undeclared } from './uses.js';

const list = JSON.parse(execFileSync('go', ['run', './exporter'], { cwd: fileURLToPath(new URL('.', import.meta.url)), encoding: 'utf8' }));

test('all fields that the exporter requests are declared, and read as declared', () => {
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

test('the types of the values that the exporter reads are found', () => {
  for (const [resource, field, use, takes] of [
    ['device', 'uuid', 'select', 'a string'],
    ['device', 'cpu_temp', 'select', 'a number'],
    ['device', 'is_frozen', 'select', 'true or false'],
    ['device', 'is_running__release', 'select', '{"__id": n}'],
    ['device_tag', 'value', 'select', 'a string'],
    ['release', 'created_at', 'select', 'a date'],
    ['cpu_architecture', 'slug', 'select', 'a string'],
    ['application', 'owns__device', 'expand', 'an integer'],
    ['application', 'owns__release', 'expand', 'an array of objects'],
  ]) {
    const kinds = list.uses.filter(u => u.resource === resource && u.field === field && u.use === use).map(u => u.takes);
    assert.deepEqual(kinds, [takes], `${resource}.${field}`);
  }
  const unread = list.uses.filter(u => ['select', 'expand'].includes(u.use) && !u.takes).map(u => `${u.resource}.${u.field}`);
  assert.deepEqual(unread, []);
});

test('each exception has a reason and a fallback', () => {
  for (const e of list.exceptions) assert.ok(e.reason.endsWith('.') && e.fallback.endsWith('.'), JSON.stringify(e));
});
