// SPDX-License-Identifier: Apache-2.0

// The cloud edition of the simulator has exactly the fields that balena-sdk declares for balenaCloud.
import assert from 'node:assert/strict';
import { before, describe, test } from 'node:test';
import { declarations } from './declarations.js';
import { simulated } from './simulated.js';
import { start } from './simulator.js';
import { undeclared } from './uses.js';

const declared = declarations();

describe('the cloud edition', () => {
  let known;
  before(async () => {
    const { url, stop } = await start('cloud', '--devices=1', '--fleets=1');
    known = await (await fetch(url + '/simulator/model')).json();
    await stop();
  });

  test('has all resources that must be simulated, under all their names', () => {
    const same = (a, b) => JSON.stringify(declared[a]) === JSON.stringify(declared[b]);
    const names = Object.keys(declared).filter(name => simulated.some(resource => same(name, resource)));
    assert.deepEqual(Object.keys(known).sort(), names.sort());
  });

  for (const resource of simulated) {
    test(`has the declared fields of ${resource} and no others`, () => {
      const differing = [];
      for (const field of new Set([...Object.keys(declared[resource] ?? {}), ...Object.keys(known[resource] ?? {})])) {
        const [want, got] = [declared[resource]?.[field], known[resource]?.[field]];
        try {
          assert.deepEqual(got, want);
        } catch {
          differing.push(`${resource}.${field} is declared as ${JSON.stringify(want)} and known as ${JSON.stringify(got)}`);
        }
      }
      assert.deepEqual(differing, [], 'run npm run generate in test/sdk and check the simulator');
    });
  }
});

describe('the declarations', () => {
  test('are read with their types', () => {
    assert.deepEqual(declared.device.modified_at, { type: 'Date Time', null: false });
    assert.deepEqual(declared.device.latitude, { type: 'Short Text', null: true });
    assert.deepEqual(declared.device.update_status, { type: 'Short Text', null: true });
    assert.deepEqual(declared.device.belongs_to__application, { type: 'reference', null: true, target: 'application' });
    assert.deepEqual(declared.application.owns__device, { type: 'navigation', null: false, target: 'device' });
    assert.deepEqual(declared.release.release_image, { type: 'navigation', null: false, target: 'release_image' });
    assert.equal(declared.image_install.modified_at, undefined);
    assert.equal(declared.device_tag.modified_at, undefined);
  });

  const use = (resource, field, use) => ({ resource, field, use });
  const read = (resource, field, use, takes, takesNull = true) => ({ resource, field, use, takes, null: takesNull });
  const exception = { resource: 'image_install', field: 'modified_at', reason: 'it may be there', fallback: 'everything is read' };
  for (const { name, uses, exceptions, declared: model = declared, want } of [
    { name: 'all is declared', uses: [use('device', 'id', 'select'), use('device', 'image_install', 'expand'), use('device', 'image_install', 'filter'), use('device', 'id', 'orderby')], want: [] },
    { name: 'a field', uses: [use('image_install', 'modified_at', 'filter')], want: ['image_install.modified_at (filter) is not declared by balena-sdk '] },
    { name: 'a field that is asked for all the same', uses: [use('image_install', 'modified_at', 'filter')], exceptions: [exception], want: [] },
    { name: 'an exception for nothing', uses: [use('image_install', 'id', 'filter')], exceptions: [exception], want: ['image_install.modified_at needs no exception'] },
    { name: 'a resource', uses: [use('nope', 'id', 'select')], want: ['nope is not a resource'] },
    { name: 'a navigation among the fields', uses: [use('device', 'image_install', 'select')], want: ["device.image_install can't be used in select"] },
    { name: 'a text to expand', uses: [use('device', 'uuid', 'expand')], want: ["device.uuid can't be used in expand"] },
    {
      name: 'all is read as declared',
      uses: [
        read('device', 'uuid', 'select', 'a string', false), read('device', 'os_version', 'select', 'a string'), read('device', 'is_online', 'select', 'true or false'),
        read('device', 'cpu_temp', 'select', 'a number'), read('device', 'id', 'select', 'an integer'), read('device', 'created_at', 'select', 'a date'),
        read('device', 'belongs_to__application', 'select', '{"__id": n}'), read('device', 'belongs_to__application', 'expand', 'an array of objects'),
        read('application', 'owns__device', 'expand', 'an array of objects'), read('application', 'owns__device', 'expand', 'an integer'),
      ],
      want: [],
    },
    { name: 'a number for a text', uses: [read('device', 'latitude', 'select', 'a number')], want: ['device.latitude is read as a number: balena-sdk '] },
    { name: 'a text for a number', uses: [read('device', 'cpu_temp', 'select', 'a string')], want: ['device.cpu_temp is read as a string: balena-sdk '] },
    { name: 'a text for a date', uses: [read('device', 'created_at', 'select', 'a string')], want: ['device.created_at is read as a string: balena-sdk '] },
    { name: 'a number for a boolean', uses: [read('device', 'is_online', 'select', 'an integer')], want: ['device.is_online is read as an integer: balena-sdk '] },
    { name: 'a number for a reference', uses: [read('device', 'belongs_to__application', 'select', 'an integer')], want: ['device.belongs_to__application is read as an integer: balena-sdk '] },
    { name: 'a count of a reference', uses: [read('device', 'belongs_to__application', 'expand', 'an integer')], want: ['device.belongs_to__application is read as an integer: balena-sdk '] },
    { name: 'a type that is new', uses: [read('release', 'semver', 'select', 'a string')], declared: { release: { semver: { type: 'SemVer' } } }, want: ['release.semver is read as a string: balena-sdk '] },
    { name: 'a value that may be null', uses: [read('device', 'os_version', 'select', 'a string', false)], want: ["device.os_version can't be read as null: balena-sdk "] },
  ]) {
    test(`report what is not declared: ${name}`, () => {
      const got = undeclared(uses, exceptions, model);
      assert.equal(got.length, want.length, got.join('\n'));
      got.forEach((sentence, i) => assert.ok(sentence.startsWith(want[i]), sentence));
    });
  }
});
