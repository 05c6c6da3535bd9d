// Package clients holds programs that use the gateway as an application would: one for each client library of MySQL that is in wide
// use, in that library's own language (node, python, c, php), and the Go driver and the mariadb command in this test. The test runs them
// all through the built gateway in front of a real MariaDB, and looks afterwards for what they left behind.
//
// Each program does the same things in the way of its library and prints a line for each: "ok NAME" or "FAIL NAME: why". It ends
// with 1 when something failed. The test knows which names each has to print, so a check that is not run is noticed.
package clients
