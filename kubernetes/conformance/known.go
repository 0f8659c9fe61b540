package main

import "strings"

// reasons say why tests whose names contain a text are not run, or fail. The first one counts.
type reasons []struct{ tests, why string }

// reason is empty if there is none.
func (r reasons) reason(t test) string {
	for _, known := range r {
		if strings.Contains(t.FullName(), known.tests) {
			return known.why
		}
	}
	return ""
}

// leftOut are tests that can't pass here, and are not run.
var leftOut = reasons{
	{"[Feature:LoadBalancer]", "needs a cloud's load balancer"},
	{"[Feature:Networking-IPv4]", "asks hosts of the Internet"},
	{"[Feature:Networking-DNS]", "asks hosts of the Internet"},
	{"[Feature:Networking-IPv6]", "asks hosts of the Internet"},
	{"Forward PTR lookup", "asks hosts of the Internet"},
	{"[Feature:SCTPConnectivity]", "the machine's kernel has no SCTP"},
	{"NetworkPolicy between", "weft has no NetworkPolicy yet"},
	{"[Feature:OffByDefault]", "tests what Kubernetes has switched off"},
	{"[Feature:Networking-Performance]", "reads what iperf 2.2 prints; Debian 12 has 2.1"},
	{"[Feature:PerformanceDNS]", "makes 10,000 Services, 20 a second"},
	{"[Disruptive]", "restarts or breaks programs of the nodes, by SSH"},
}

// knownFailures are tests that fail here, and why.
var knownFailures = reasons{
	{"should implement NodePort and HealthCheckNodePort correctly when ExternalTrafficPolicy changes",
		"A node asks its own NodePort, and kube-proxy masquerades the request to another node's pod. Linux then takes the " +
			"address of the device that leads there, weft0: the node's address among pods. The test wants the node's address " +
			"on the underlay, which is what networks without a device of their own give"},
}
