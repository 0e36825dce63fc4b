// Package check reads what is under deploy/ the way its users' programs would:
// it renders the Helm chart, decodes every object strictly into Kubernetes' own
// types, loads docker-compose.yml and the alert rules with their owners'
// libraries, and compares names, ports and references with each other and with
// the program's documentation.
//
// It is a module of its own because those libraries bring in hundreds of
// packages, and Forager itself needs none of them.
package check
