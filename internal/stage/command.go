package stage

import (
	"context"
	"os"
	"path/filepath"

	"weft/internal/testnet"
)

// ShowCommand prints what the operator's command says on a node. The demo can do without.
func (d *Demo) ShowCommand(ctx context.Context, node *testnet.Node, command string) error {
	weft, err := filepath.Abs(filepath.Join(d.Bin, "weft"))
	if err != nil {
		return err
	}
	if _, err := os.Stat(weft); err != nil {
		d.Note("`weft %s` is not shown: there is no %s.", command, weft)
		return nil
	}
	out, err := node.Exec(ctx, weft, "--socket", node.Socket(), command)
	if err != nil {
		return d.Concerning(err, node)
	}
	d.Gap()
	d.Line("%s", d.Paint(Bold, "weft "+command+" on "+node.Entry().Name))
	d.Block(out)
	return nil
}
