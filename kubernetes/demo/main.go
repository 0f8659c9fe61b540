// Command demo shows weft as the only pod network of a whole Kubernetes, on one machine:
// the API server and the nodes are network namespaces, everything in them is real. It
// prints what it measured just now, and fails where Kubernetes or weft does.
//
// It needs root, and Kubernetes' programs beside weft's. Its exit status, and what it
// leaves behind, are those of weft's other demo (weft/internal/demo).
package main

import (
	"flag"
	"os"
	"time"

	"k8s.io/client-go/rest"

	"weft/internal/stage"
)

// limit exists only so that a hang ends.
const limit = 30 * time.Minute

func main() {
	root := flag.String("root", ".", "`folder` of weft's sources, where the manifests are")
	o := stage.Parse()
	// The API server's warnings would appear between what is shown.
	rest.SetDefaultWarningHandler(rest.NoWarnings{})
	os.Exit(stage.Run(o, limit, func(s *stage.Demo) {
		d := &demo{Demo: s, root: *root}
		s.Steps, s.Hints = d.steps(), d.hints
	}))
}
