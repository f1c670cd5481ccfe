// SPDX-License-Identifier: Apache-2.0

// The package osversion is tested with what balena-semver says now.
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { corpus, file } from './versions.js';

test('the recorded order of versions is that of balena-semver', () => {
  assert.deepEqual(corpus().split('\n'), readFileSync(file, 'utf8').split('\n'), 'run npm run generate in test/sdk and the tests of internal/balena/osversion');
});
