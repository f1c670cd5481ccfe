// SPDX-License-Identifier: Apache-2.0

// Checks a list of uses against the declarations: node uses.js FILE, where the file, or standard input, is a JSON array of
// {"resource", "field", "use"}, or {"uses", "exceptions"}. It prints a sentence for each use that balenaCloud may refuse,
// and for each value that may be of another type than expected, and fails if there are any.
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { declarations, version } from './declarations.js';

// The possible uses of a field, depending on its declaration.
const isField = ({ type }) => type !== 'navigation';
const leadsOn = ({ target }) => target !== undefined;
const uses = { select: isField, orderby: isField, filter: () => true, expand: leadsOn };

// The types as which a value can be read, depending on its declaration, in the words of the reader's errors. A type that
// is missing here is not supported yet.
const kinds = {
  'Short Text': ['a string'], Text: ['a string'], Boolean: ['true or false'], Integer: ['an integer', 'a number'], Real: ['a number'],
  'Date Time': ['a date'], reference: ['{"__id": n}'],
};
const expandedKinds = {
  reference: ['an array of objects'], navigation: ['an array of objects', 'an integer'], // the integer is a $count
};

/**
 * Returns a sentence for each use that is neither declared nor an exception, for each value that is read as another type
 * than the declared one, and for each exception that is no longer needed. A use may have the type that it expects, and
 * whether it accepts null: {takes, null}. An exception is {resource, field, reason, fallback}: why the field is requested
 * although it is not declared, and what happens if the server refuses it.
 */
export function undeclared(wanted, exceptions = [], declared = declarations()) {
  const found = [];
  const needed = new Set();
  for (const { resource, field, use, takes, null: takesNull } of wanted) {
    if (!uses[use]) throw new Error(`${resource}.${field}: the use ${JSON.stringify(use)} is none of ${Object.keys(uses).join(', ')}`);
    const declaration = declared[resource]?.[field];
    if (declaration && uses[use](declaration)) {
      if (!takes) continue;
      const possible = (use === 'expand' ? expandedKinds : kinds)[declaration.type] ?? [];
      if (!possible.includes(takes)) found.push(`${resource}.${field} is read as ${takes}: balena-sdk ${version} declares it as ${declaration.type}`);
      if (declaration.null && !takesNull) found.push(`${resource}.${field} can't be read as null: balena-sdk ${version} declares that it may be null`);
      continue;
    }
    const exception = exceptions.find(e => e.resource === resource && e.field === field);
    if (exception) {
      needed.add(exception);
    } else if (!declared[resource]) {
      found.push(`${resource} is not a resource that balena-sdk ${version} declares`);
    } else if (!declaration) {
      found.push(`${resource}.${field} (${use}) is not declared by balena-sdk ${version}`);
    } else {
      found.push(`${resource}.${field} can't be used in ${use}: balena-sdk ${version} declares it as ${declaration.type}`);
    }
  }
  for (const e of exceptions) {
    if (!needed.has(e)) found.push(`${e.resource}.${e.field} needs no exception: it is declared, or not requested`);
  }
  return found;
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const list = JSON.parse(readFileSync(process.argv[2] ?? 0, 'utf8'));
  const found = undeclared(list.uses ?? list, list.exceptions);
  for (const sentence of found) console.error(sentence);
  process.exit(found.length > 0 ? 1 : 0);
}
