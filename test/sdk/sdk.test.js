// SPDX-License-Identifier: Apache-2.0

// balena-sdk, used as in programs, reads the content of the dataset from both editions of the simulator.
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { after, before, describe, test } from 'node:test';
import { getSdk } from 'balena-sdk';
import { recorded, start, token } from './simulator.js';

/** The rows of a resource as recorded from a real server. */
const rows = resource => JSON.parse(readFileSync(`${recorded}${resource}.json`, 'utf8')).d;
const held = {
  fleets: rows('application'), devices: rows('device'), releases: rows('release'), installs: rows('image_install'), deviceTags: rows('device_tag'),
  fleetTags: rows('application_tag'), keys: rows('api_key'), deviceTypes: rows('device_type'), organizations: rows('organization'),
};

/** Returns a client that keeps its token in memory. */
async function client(url, key = token) {
  const sdk = getSdk({ apiUrl: url, dataDirectory: false });
  if (key) await sdk.auth.loginWithToken(key);
  return sdk;
}

const by = key => (a, b) => a[key] < b[key] ? -1 : a[key] > b[key] ? 1 : 0;
const pick = (all, ...keys) => all.map(row => Object.fromEntries(keys.map(key => [key, row[key] ?? null])));
const of = (all, key, id) => all.filter(row => row[key]?.__id === id);
const refused = status => error => error.statusCode === status || assert.fail(`${error.name}: ${error.message}`);

const fleet = held.fleets.find(f => f.slug === 'admin/jetson-vision');
const small = held.fleets.find(f => f.slug === 'zeta/legacy-name');
const device = of(held.devices, 'belongs_to__application', small.id).find(d => of(held.installs, 'device', d.id).length > 1);
const tagged = held.devices.find(d => of(held.deviceTags, 'device', d.id).length > 1);

/** Each call, with the expected answer from the dataset. If the answer depends on the edition, so does the expectation. */
const calls = {
  'auth.isLoggedIn': [m => m.sdk.auth.isLoggedIn(), () => true],
  'auth.whoami': [async m => (await m.sdk.auth.whoami()).username, () => 'admin'],

  // Fleets.
  'application.getAll': [
    async m => pick((await m.application.getAll({ $filter: { is_public: false } })).sort(by('id')), 'id', 'uuid', 'app_name', 'slug', 'is_of__class', 'is_archived', 'created_at'),
    () => pick(held.fleets.filter(f => !f.is_public), 'id', 'uuid', 'app_name', 'slug', 'is_of__class', 'is_archived', 'created_at'),
  ],
  'application.getAllDirectlyAccessible with counts': [
    async m => (await m.application.getAllDirectlyAccessible({ $select: 'slug', $expand: { owns__device: { $count: { $filter: { is_online: true } } }, owns__release: { $count: {} } } })).sort(by('slug')),
    () => held.fleets.map(f => ({
      owns__device: of(held.devices, 'belongs_to__application', f.id).filter(d => d.is_online).length,
      owns__release: of(held.releases, 'belongs_to__application', f.id).length, slug: f.slug,
    })).sort(by('slug')),
  ],
  'application.getAllDirectlyAccessible with releases': [
    async m => pick(await m.application.getAllDirectlyAccessible({ $select: 'id', $orderby: { id: 'asc' }, $expand: { owns__release: { $select: ['id', 'commit'], $orderby: { id: 'asc' } } } }), 'id', 'owns__release'),
    () => held.fleets.map(f => ({ id: f.id, owns__release: pick(of(held.releases, 'belongs_to__application', f.id), 'id', 'commit') })),
  ],
  'application.get by slug': [async m => (await m.application.get(small.slug)).app_name, () => small.app_name],
  'application.get by uuid': [async m => (await m.application.get(fleet.uuid)).slug, () => fleet.slug],
  'application.get of none': [m => m.application.get('acme/nothing').catch(e => e.name), () => 'BalenaApplicationNotFound'],
  'application.getDirectlyAccessible': [async m => (await m.application.getDirectlyAccessible(fleet.slug, { $expand: { is_for__device_type: { $select: 'slug' } } })).is_for__device_type, () => [{ slug: 'jetson-nano' }]],
  'application.getAppByName': [async m => (await m.application.getAppByName(small.app_name)).id, () => small.id],
  'application.getAppByName of two': [m => m.application.getAppByName('greenhouse-sensors').catch(e => e.name), () => 'BalenaAmbiguousApplication'],
  'application.getAllByOrganization': [
    async m => (await m.application.getAllByOrganization('zeta')).map(f => f.slug).sort(),
    () => held.fleets.filter(f => f.organization[0].handle === 'zeta').map(f => f.slug).sort(),
  ],
  'application.has': [m => m.application.has(fleet.slug), () => true],
  'application.hasAny': [m => m.application.hasAny(), () => true],
  'application.getTargetReleaseHash': [m => m.application.getTargetReleaseHash(fleet.slug), () => fleet.should_be_running__release[0].commit],
  'application.isTrackingLatestRelease': [m => Promise.all([fleet.slug, small.slug].map(slug => m.application.isTrackingLatestRelease(slug))), () => [false, true]],
  'application.getWithDeviceServiceDetails': [
    async m => (await m.application.getWithDeviceServiceDetails(small.slug)).owns__device.map(services).sort(by('id')),
    () => of(held.devices, 'belongs_to__application', small.id).map(servicesHeld),
  ],
  'application.tags.getAllByApplication': [async m => pick(await m.application.tags.getAllByApplication(1), 'tag_key', 'value'), () => pick(of(held.fleetTags, 'application', 1).sort(by('tag_key')), 'tag_key', 'value')],

  // Devices.
  'device.getAllByApplication': [
    async m => pick((await m.device.getAllByApplication(fleet.slug)).sort(by('id')), 'id', 'uuid', 'device_name', 'overall_status', 'os_version', 'modified_at', 'is_running__release', 'should_be_running__release'),
    () => pick(of(held.devices, 'belongs_to__application', fleet.id).sort(by('id')), 'id', 'uuid', 'device_name', 'overall_status', 'os_version', 'modified_at', 'is_running__release', 'should_be_running__release'),
  ],
  'device.getAllByOrganization': [
    async m => (await m.device.getAllByOrganization('zeta', { $select: 'id' })).length,
    () => held.fleets.filter(f => f.organization[0].handle === 'zeta').flatMap(f => of(held.devices, 'belongs_to__application', f.id)).length,
  ],
  'device.get by uuid': [async m => (await m.device.get(device.uuid)).device_name, () => device.device_name],
  'device.get by id': [async m => (await m.device.get(device.id)).uuid, () => device.uuid],
  'device.get of none': [m => m.device.get('0123456789abcdef0123456789abcdef').catch(e => e.name), () => 'BalenaDeviceNotFound'],
  'device.getByName': [
    async m => (await m.device.getByName('Gerät "50" \\ ü ☃')).map(d => d.uuid).sort(),
    () => held.devices.filter(d => d.device_name === 'Gerät "50" \\ ü ☃').map(d => d.uuid).sort(),
  ],
  'device.getWithServiceDetails': [async m => services(await m.device.getWithServiceDetails(device.uuid)), () => servicesHeld(device)],
  'device.getName': [m => m.device.getName(device.uuid), () => device.device_name],
  'device.getApplicationName': [m => m.device.getApplicationName(device.uuid), () => small.app_name],
  'device.getStatus': [m => m.device.getStatus(device.uuid), () => device.overall_status],
  'device.isOnline': [m => m.device.isOnline(device.uuid), () => device.is_online],
  'device.getTargetReleaseHash': [m => m.device.getTargetReleaseHash(device.uuid), () => held.releases.find(r => r.id === device.should_be_running__release.__id).commit],
  'device.hasDeviceUrl': [m => m.device.hasDeviceUrl(device.uuid), () => device.is_web_accessible],
  'device.tags.getAllByDevice': [async m => pick(await m.device.tags.getAllByDevice(tagged.uuid), 'tag_key', 'value'), () => pick(of(held.deviceTags, 'device', tagged.id).sort(by('tag_key')), 'tag_key', 'value')],
  'device.tags.getAllByApplication': [
    async m => pick((await m.device.tags.getAllByApplication(fleet.slug)).sort(by('id')), 'id', 'tag_key', 'value'),
    () => pick(of(held.devices, 'belongs_to__application', fleet.id).flatMap(d => of(held.deviceTags, 'device', d.id)).sort(by('id')), 'id', 'tag_key', 'value'),
  ],
  'devices modified since a date': [async m => (await m.sdk.pine.get({ resource: 'device', options: { $select: 'id', $filter: { modified_at: { $gt: since } } } })).length, () => modified],
  'devices modified since a date, as text': [async m => (await m.sdk.pine.get({ resource: 'device', options: { $select: 'id', $filter: { modified_at: { $gt: since.toISOString() } } } })).length, () => modified],
  'count of devices': [m => m.sdk.pine.get({ resource: 'device', options: { $count: { $filter: { is_online: true } } } }), () => held.devices.filter(d => d.is_online).length],

  // Releases.
  'release.getAllByApplication': [
    async m => pick(await m.release.getAllByApplication(fleet.slug), 'id', 'commit', 'status', 'raw_version', 'semver', 'is_final', 'is_invalidated', 'created_at'),
    () => pick(of(held.releases, 'belongs_to__application', fleet.id).sort(by('created_at')).reverse(), 'id', 'commit', 'status', 'raw_version', 'semver', 'is_final', 'is_invalidated', 'created_at'),
  ],
  'release.get by commit': [async m => (await m.release.get(held.releases[3].commit)).id, () => held.releases[3].id],
  'release.get by version': [
    async m => pick([await m.release.get({ application: 'admin/greenhouse-sensors', rawVersion: '1.2.0+rev1' })], 'id', 'semver_major', 'semver_minor', 'semver_patch', 'semver_prerelease', 'revision', 'source', 'version', 'composition')[0],
    () => ({
      id: 4, semver_major: 1, semver_minor: 2, semver_patch: 0, semver_prerelease: '', revision: 1, source: 'cloud',
      version: { raw: '1.2.0+rev1', build: ['rev1'], major: 1, minor: 2, patch: 0, version: '1.2.0', prerelease: [] },
      composition: { version: '2.1', services: { main: {}, mqtt: {}, telemetry: {} } },
    }),
  ],
  'release.get of a draft': [
    async m => (await m.release.get(5)).version,
    () => ({ raw: '2.0.0-rc.1.1795355694787', build: [], major: 2, minor: 0, patch: 0, version: '2.0.0-rc.1.1795355694787', prerelease: ['rc', '1', 1795355694787] }),
  ],
  'release.get has a start': [async m => Date.parse((await m.release.get(1)).start_timestamp) > 0, () => true],
  'release.getLatestByApplication': [
    async m => (await m.release.getLatestByApplication(fleet.slug)).id,
    () => of(held.releases, 'belongs_to__application', fleet.id).filter(r => r.status === 'success').sort(by('created_at')).at(-1).id,
  ],
  // openBalena has no is_created_by__user, which this call always requests.
  'release.getWithImageDetails': [
    async m => {
      const release = await m.release.getWithImageDetails(4);
      return { user: release.user.username, services: release.images.map(i => i.service_name) };
    },
    edition => edition === 'cloud' ? { user: 'admin', services: servicesOf(4) } : refused(500),
  ],
  'release.tags.getAllByApplication': [m => m.release.tags.getAllByApplication(fleet.slug), () => []],
  'release.tags.getAllByRelease': [m => m.release.tags.getAllByRelease(4), () => []],
  'service.getAllByApplication': [async m => (await m.service.getAllByApplication('admin/greenhouse-sensors')).map(s => s.service_name).sort(), () => ['main', 'mqtt', 'telemetry']],
  'image.get': [async m => typeof (await m.image.get(held.installs[0].installs__image[0].id)).image_size, () => 'string'],
  'image.getLogs': [m => m.image.getLogs(held.installs[0].installs__image[0].id), () => null],

  // Resources that belong to no fleet.
  'apiKey.getAll': [async m => pick(await m.apiKey.getAll(), 'id', 'name', 'expiry_date'), () => pick(held.keys.sort(by('name')), 'id', 'name', 'expiry_date')],
  'apiKey.getAllNamedUserApiKeys': [async m => (await m.apiKey.getAllNamedUserApiKeys()).length, () => held.keys.length],
  'apiKey.getProvisioningApiKeysByApplication': [m => m.apiKey.getProvisioningApiKeysByApplication(fleet.slug), () => []],
  'organization.getAll': [async m => pick((await m.organization.getAll()).sort(by('id')), 'id', 'name', 'handle'), () => held.organizations],
  'organization.get': [async m => (await m.organization.get('zeta')).name, () => 'Žeta "Labs" \\ GmbH'],
  'deviceType.getAll': [async m => (await m.deviceType.getAll()).map(t => t.name), () => held.deviceTypes.map(t => t.name).sort()],
  'deviceType.get': [
    async m => {
      const t = await m.deviceType.get('raspberrypi3', { $expand: { is_of__cpu_architecture: { $select: 'slug' }, belongs_to__device_family: { $select: 'slug', $expand: { is_manufactured_by__device_manufacturer: { $select: 'name' } } } } });
      return { arch: t.is_of__cpu_architecture[0].slug, family: t.belongs_to__device_family[0], contract: t.contract.slug, logo: t.logo.slice(0, 19) };
    },
    () => ({ arch: 'armv7hf', family: { is_manufactured_by__device_manufacturer: [{ name: 'Raspberry Pi Foundation' }], slug: 'raspberrypi' }, contract: 'raspberrypi3', logo: 'data:image/svg+xml;' }),
  ],
  'deviceType.getBySlugOrName': [async m => (await m.deviceType.getBySlugOrName('Raspberry Pi 3')).slug, () => 'raspberrypi3'],
  'deviceType.getName': [m => m.deviceType.getName('intel-nuc'), () => 'Intel NUC'],
  'deviceType.getInstallMethod': [m => m.deviceType.getInstallMethod('intel-nuc'), () => 'externalFlash'],
  'deviceType.getAllSupported': [async m => (await m.deviceType.getAllSupported()).length, edition => edition === 'cloud' ? held.deviceTypes.length : 0],
  'deviceType.getInstructions': [async m => (await m.deviceType.getInstructions('raspberrypi3')).length > 2, () => true],

  // Only balenaCloud has what balena publishes.
  'os.getAvailableOsVersions': [
    async m => (await m.os.getAvailableOsVersions('raspberrypi3')).map(v => `${v.strippedVersion} ${v.osType} ${v.line ?? ''} ${v.basedOnVersion}`),
    edition => edition === 'cloud' ? [
      '2026.10.0 esr next 6.6.0', '2026.7.1 esr current 6.5.10', '2026.4.2 esr sunset 6.3.12', '2026.1.5 esr outdated 6.0.24',
      '6.6.0 default  6.6.0', '6.5.10 default  6.5.10', '6.0.13+rev1 default  6.0.13+rev1', '5.3.21 default  5.3.21',
      '2.115.18+rev4 default outdated 2.115.18+rev4', '2.88.4+rev1 default  2.88.4+rev1', '2.88.4+rev1 default  2.88.4+rev1',
      '2.58.3+rev1 default  2.58.3+rev1',
    ] : [],
  ],
  'os.getAllOsVersions': [async m => Object.values(await m.os.getAllOsVersions(['raspberrypi3', 'intel-nuc'])).map(all => all.length), edition => edition === 'cloud' ? [17, 17] : []],
  'os.getMaxSatisfyingVersion': [m => m.os.getMaxSatisfyingVersion('raspberrypi3', '^6.0.0'), edition => edition === 'cloud' ? '6.6.0' : null],
  'os.getSupervisorReleasesForCpuArchitecture': [
    async m => (await m.os.getSupervisorReleasesForCpuArchitecture('aarch64')).map(r => r.raw_version),
    edition => edition === 'cloud' ? ['17.1.0', '17.0.3', '16.12.0', '16.1.0', '14.13.14', '12.11.0'] : [],
  ],
  'config.getAll': [async m => (await m.config.getAll()).deviceUrlsBase, edition => edition === 'cloud' ? 'balena-devices.com' : refused(404)],
  'fields that only balenaCloud has': [
    m => m.device.get(device.uuid, { $select: ['is_active', 'is_frozen', 'latitude', 'custom_latitude', 'is_accessible_by_support_until__date'] }),
    edition => edition === 'cloud' ? { is_active: true, is_frozen: false, latitude: null, custom_latitude: '', is_accessible_by_support_until__date: null } : refused(500),
  ],
  'a field that only openBalena has': [
    m => m.sdk.pine.get({ resource: 'image_install', options: { $top: 1, $select: 'id', $filter: { modified_at: { $lt: new Date(0) } } } }),
    edition => edition === 'cloud' ? refused(500) : [],
  ],
};

const since = new Date(held.devices.map(d => d.modified_at).sort().at(-20));
const modified = held.devices.filter(d => new Date(d.modified_at) > since).length;

/** The services of a device in an answer of getWithServiceDetails. */
function services(d) {
  const found = Object.entries(d.current_services_by_app).flatMap(([app, byName]) => Object.entries(byName).flatMap(([name, all]) => all.map(i => `${app} ${name} ${i.status} ${i.commit}`)));
  return { id: d.id, services: found.sort() };
}

/** The services of a device in the dataset. */
function servicesHeld(d) {
  const found = of(held.installs, 'device', d.id).filter(i => i.status !== 'deleted').map(i => {
    const release = held.releases.find(r => r.id === i.is_provided_by__release.__id);
    const app = held.fleets.find(f => f.id === release.belongs_to__application.__id);
    return `${app.slug} ${i.installs__image[0].is_a_build_of__service[0].service_name} ${i.status} ${release.commit}`;
  });
  return { id: d.id, services: found.sort() };
}

/** The services of a release, derived from its images on devices. */
function servicesOf(release) {
  return [...new Set(of(held.installs, 'is_provided_by__release', release).map(i => i.installs__image[0].is_a_build_of__service[0].service_name))].sort();
}

for (const edition of ['cloud', 'openbalena']) {
  describe(`balena-sdk reads from the ${edition} edition`, () => {
    let sdk, url, stop;
    before(async () => {
      ({ url, stop } = await start(edition, `--dataset=${recorded}`));
      sdk = await client(url);
    });
    after(() => stop?.());

    for (const [name, [call, want]] of Object.entries(calls)) {
      test(name, async () => {
        const wanted = want(edition);
        const answer = call({ ...sdk.models, sdk });
        if (typeof wanted === 'function') {
          await assert.rejects(answer, wanted);
        } else {
          assert.deepEqual(await answer, wanted);
        }
      });
    }

    test('without a token', async () => {
      const guest = await client(url, null);
      await assert.rejects(guest.models.device.get(device.uuid), { name: 'BalenaNotLoggedIn' });
      assert.deepEqual((await guest.models.application.getAll({ $filter: { is_host: false, slug: { $startswith: 'admin/' } } })).map(f => f.slug), ['admin/public-demo']);
      if (edition === 'cloud') assert.ok((await guest.models.os.getAvailableOsVersions('raspberrypi3')).length > 5);
    });

    test('with a token that is refused', async () => {
      await assert.rejects((await client(url, 'wrong-token-wrong-token-wrong-to')).models.device.get(device.uuid), refused(401));
    });
  });
}

describe('balena-sdk reads what a living account on balenaCloud has', () => {
  let models, stop;
  before(async () => {
    const { url, stop: end } = await start('cloud', '--devices=500', '--fleets=7');
    stop = end;
    ({ models } = await client(url));
  });
  after(() => stop?.());

  test('devices that are inactive, frozen, accessible to support, and have coordinates', async () => {
    const devices = (await models.application.getAllDirectlyAccessible({ $expand: { owns__device: {} } })).flatMap(f => f.owns__device);
    assert.equal(devices.length, 500);
    for (const is of [d => !d.is_active && d.overall_status === 'inactive', d => d.is_frozen && !d.is_online, d => d.is_accessible_by_support_until__date, d => d.latitude && d.location, d => d.custom_longitude]) {
      const some = devices.filter(is).length;
      assert.ok(some > 0 && some < devices.length, `${some} of ${devices.length}: ${is}`);
    }
  });

  test('an organization that has not paid', async () => {
    const late = await models.organization.getAll({ $select: ['handle', 'is_frozen'], $filter: { has_past_due_invoice_since__date: { $ne: null } } });
    assert.deepEqual(late, [{ handle: 'kite', is_frozen: false }]);
  });

  test('target releases of the host OS', async () => {
    const [d] = (await models.device.getAllByOrganization('acme', { $top: 1, $filter: { should_be_operated_by__release: { $ne: null } }, $expand: { should_be_operated_by__release: { $select: 'raw_version' } } }));
    assert.equal(`balenaOS ${d.should_be_operated_by__release[0].raw_version}`, d.os_version);
  });

  test('tags of releases', async () => {
    const tags = await models.release.tags.getAllByApplication('acme/greenhouse', { $filter: { tag_key: 'built by' } });
    assert.ok(tags.length > 3);
    assert.equal(tags[0].value, 'CI of "Zoë"');
  });
});
