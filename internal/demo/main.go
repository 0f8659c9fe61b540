// Command demo shows weft at work on one machine: nodes and pods are network
// namespaces, everything else is real. weftd routes, weft-cni wires the pods as a
// container runtime would have it do, and what is printed was measured just now.
//
// It needs root, and it touches nothing outside of the namespaces that it makes.
// Its exit status is 0 if everything worked, 1 if something did not, 2 if it was
// called wrongly, 130 if it was interrupted. In any case nothing is left behind,
// unless --keep asks for it.
package main

import (
	"flag"
	"os"
	"time"

	"weft/internal/config"
	"weft/internal/stage"
)

// limit exists only so that a hang ends: the demo takes half a minute, on a slow and busy
// machine many times as long.
const limit = 15 * time.Minute

func main() {
	control := flag.String("control", string(config.SourceFile), "control `source` that has the list of nodes: file or etcd")
	o := stage.Parse()
	switch *control {
	case string(config.SourceFile), string(config.SourceEtcd):
	case string(config.SourceKubernetes):
		stage.Refuse("Kubernetes has a demo of its own: make demo CONTROL=kubernetes")
	default:
		stage.Refuse("unknown control source %q; there are file, etcd and kubernetes", *control)
	}
	os.Exit(stage.Run(o, limit, func(s *stage.Demo) {
		d := &demo{Demo: s, control: *control, servers: newServers()}
		s.Steps, s.Stop, s.Hints = d.steps(), d.servers.stopAll, d.hints
	}))
}
