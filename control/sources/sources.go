// Package sources opens the control source that the configuration names.
package sources

import (
	"context"
	"fmt"

	"weft/control"
	"weft/control/file"
	"weft/internal/config"
)

// Source is a control source that can also be asked once.
type Source interface {
	control.Source

	// Load returns what the source says now, and changes nothing there.
	Load(context.Context) (control.State, error)

	// Origin names the source: "/etc/weft/nodes.yaml", "etcd /weft", "kubernetes".
	Origin() string
}

// Open returns the source that c names. It is not asked yet, and needn't be there. An
// error is a mistake in the configuration, or in a file that it names.
func Open(c config.Config) (Source, error) {
	switch c.Control.Source {
	case config.SourceFile:
		return file.New(c.Control.File), nil
	}
	return nil, fmt.Errorf("the control source %s is not there yet", c.Control.Source)
}
