// Package bench measures the gateway beside its peers (nginx, HAProxy, MariaDB) in one run on one machine. It has no code outside its tests: each
// scenario is one Benchmark function in a file of its own, with the question in its comment. README.md tells the method and how to read the figures,
// results.md keeps them.
package bench
