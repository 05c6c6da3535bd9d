package config

import "slices"

// synonyms are what keys are called elsewhere, and here: the first that is accepted in its place is meant. Nothing but messages knows of them.
var synonyms = map[string][]string{
	"backend": {"service", "services"}, "backends": {"services", "endpoints"}, "upstream": {"service", "services", "endpoints"}, "upstreams": {"services"},
	"server": {"listeners", "endpoints", "primary"}, "servers": {"endpoints", "services"}, "targets": {"endpoints"}, "target": {"service"}, "url": {"endpoints", "to", "address"},
	"urls": {"endpoints"}, "nodes": {"endpoints"}, "proxy_pass": {"service"}, "forward": {"service"}, "return": {"respond"}, "response": {"respond"},
	"frontend": {"listeners"}, "frontends": {"listeners"}, "entrypoints": {"listeners"}, "entryPoints": {"listeners"}, "ports": {"listeners"}, "http": {"listeners"},
	"listen": {"address", "listeners"}, "bind": {"address", "listeners"}, "port": {"address"}, "ssl": {"tls"}, "certificate": {"cert"}, "private_key": {"key"}, "ssl_certificate": {"cert", "tls"},
	"loadBalancer": {"balance"}, "load_balancer": {"balance"}, "load_balancing": {"balance"}, "lb_policy": {"balance"}, "strategy": {"balance", "algorithm"}, "check": {"health_check"}, "healthcheck": {"health_check"},
	"location": {"match"}, "rule": {"match"}, "prefix": {"match", "paths"}, "uri": {"match", "paths"}, "middlewares": {"policies"}, "plugins": {"policies"}, "filters": {"policies"}, "rules": {"routes", "policies"}, "routers": {"routes"},
	"users": {"consumers"}, "credentials": {"consumers", "login"}, "master": {"primary"}, "writer": {"primary"}, "slaves": {"replicas"}, "readers": {"replicas"}, "logging": {"log"}, "api": {"admin"}, "dashboard": {"admin"}, "metrics": {"admin"},
}

// near is the key that a wrong one stands for: what it is called here, or else the one that is spelled most like it.
func near(word string, candidates []string) string {
	for _, here := range synonyms[word] {
		if slices.Contains(candidates, here) {
			return here
		}
	}
	return Nearest(word, candidates)
}
