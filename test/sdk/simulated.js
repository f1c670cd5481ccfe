// SPDX-License-Identifier: Apache-2.0

// The resources of the simulator's cloud edition: those that the exporter and the calls in sdk.test.js read.
export const simulated = [
  'api_key', 'application', 'application_tag', 'cpu_architecture', 'device', 'device_family', 'device_manufacturer', 'device_tag', 'device_type',
  'device_type_alias', 'image', 'image_install', 'organization', 'release', 'release_image', 'release_tag', 'service', 'user',
];
