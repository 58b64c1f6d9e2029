// Package converge is the root of the Converge monorepo. It holds no code of
// the tools: each of them is a module of its own in the folder that has its
// name, joined by go.work. What lives here is what concerns the repository as
// a whole: the end-to-end tests, which drive the built programs with stock
// OpenSSH, and the checks of the house rules.
package converge
