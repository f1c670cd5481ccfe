// Package repository compares what is written about the repository as a whole with what is in it: the drawing of the
// packages, and the list of modules that Dependabot looks at.
package repository
