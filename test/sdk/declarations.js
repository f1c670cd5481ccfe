// SPDX-License-Identifier: Apache-2.0

// Reads balenaCloud's model from the type declarations of balena-sdk with TypeScript's compiler API.
// TypeScript 6 is the newest version with a compiler API for JavaScript; TypeScript 7 has none.
import { createRequire } from 'node:module';
import path from 'node:path';
import ts from 'typescript';

const require = createRequire(import.meta.url);
const sdk = path.dirname(require.resolve('balena-sdk/package.json'));

/** The version of balena-sdk whose declarations are read. */
export const version = require('balena-sdk/package.json').version;

/**
 * Returns the readable fields of each resource: {resource: {field: {type, null, target}}}.
 *
 * The type is a type name of the model ("Short Text", "Date Time"), "reference" for a foreign key, or "navigation" for the
 * reverse of a foreign key. A union of strings is "Short Text". References and navigations lead to the target, a resource.
 * A resource with several names is declared under each of them; targets have the shortest name.
 */
export function declarations() {
  const file = path.join(sdk, 'es2018', 'types', 'v7.d.ts');
  const program = ts.createProgram([file], { strict: true, noEmit: true, module: ts.ModuleKind.Node16, moduleResolution: ts.ModuleResolutionKind.Node16, types: [] });
  const source = program.getSourceFile(file);
  if (!source) throw new Error(`balena-sdk ${version} has no ${file}: find out where it declares the model now`);
  const checker = program.getTypeChecker();
  const model = checker.getExportsOfModule(checker.getSymbolAtLocation(source)).find((symbol) => symbol.escapedName === 'default');
  const resources = checker.getDeclaredTypeOfSymbol(model).getProperties();

  const names = new Map(); // interface symbol -> shortest name
  const interfaceOf = (resource) => checker.getTypeOfSymbol(resource).symbol;
  for (const resource of resources) {
    const shortest = names.get(interfaceOf(resource));
    if (!shortest || resource.name.length < shortest.length) names.set(interfaceOf(resource), resource.name);
  }

  const declared = {};
  for (const resource of resources) {
    const read = checker.getTypeOfSymbol(resource).getProperty('Read');
    declared[resource.name] = {};
    for (const field of checker.getTypeOfSymbol(read).getProperties()) {
      declared[resource.name][field.name] = describe(checker, names, field, `${resource.name}.${field.name}`);
    }
  }
  return declared;
}

/** Describes the type of one field, from the nodes of its declaration. */
function describe(checker, names, field, called) {
  const node = field.valueDeclaration.type;
  const parts = ts.isUnionTypeNode(node) ? [...node.types] : [node];
  const isNull = (part) => ts.isLiteralTypeNode(part) && part.literal.kind === ts.SyntaxKind.NullKeyword;
  const found = { null: parts.some(isNull) };
  const target = (part) => names.get(checker.getTypeFromTypeNode(part.objectType).symbol);
  for (const part of parts.filter((part) => !isNull(part))) {
    if (ts.isTypeReferenceNode(part) && part.typeName.getText() === 'Array') { // Array<Device['Read']>
      found.type = 'navigation';
      found.target = target(part.typeArguments[0]);
    } else if (ts.isTupleTypeNode(part)) { // [Device['Read']], or [] if it may be null
      found.type = 'reference';
      if (part.elements.length > 0) found.target = target(part.elements[0]);
    } else if (ts.isTypeLiteralNode(part)) { // {__id: Device['Read']['id']}
      found.type = 'reference';
    } else if (ts.isIndexedAccessTypeNode(part) && ts.isIndexedAccessTypeNode(part.objectType)) { // Types['Short Text']['Read']
      found.type = part.objectType.indexType.literal.text;
    } else if (ts.isLiteralTypeNode(part) && ts.isStringLiteral(part.literal)) {
      found.type = 'Short Text';
    } else if (part.kind === ts.SyntaxKind.BooleanKeyword) {
      found.type = 'Boolean';
    } else {
      throw new Error(`${called} is declared in a way that is new: ${node.getText()}`);
    }
  }
  if ((found.type === 'navigation' || found.type === 'reference') && !found.target) throw new Error(`${called} leads to a resource that is not in the model`);
  return found;
}
