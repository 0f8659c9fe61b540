package monitoring

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
)

const dashboardFile = "../../deploy/grafana/weft.json"

// panel is one of the dashboard's, as far as the tests look at it.
type panel struct {
	ID                       int
	Type, Title, Description string
	GridPos                  struct{ H, W, X, Y int }
	Datasource               struct{ Type, UID string }
	Targets                  []struct {
		RefID, Expr string
		Datasource  struct{ Type, UID string }
	}
}

func panels(t *testing.T) []panel {
	t.Helper()
	var dashboard struct {
		UID        string
		Templating struct{ List []struct{ Name, Type string } }
		Panels     []panel
	}
	if err := json.Unmarshal(read(t, dashboardFile), &dashboard); err != nil {
		t.Fatal(err)
	}
	variables := ""
	for _, v := range dashboard.Templating.List {
		variables += v.Name + " " + v.Type + ";"
	}
	if dashboard.UID != "weft" || variables != "datasource datasource;node query;" {
		t.Errorf("uid %q, variables %q", dashboard.UID, variables)
	}
	return dashboard.Panels
}

func TestPanelsAreComplete(t *testing.T) {
	ids, cells := map[int]bool{}, map[string]string{}
	for _, p := range panels(t) {
		where := fmt.Sprintf("panel %d (%s)", p.ID, p.Title)
		if ids[p.ID] || p.Title == "" {
			t.Errorf("%s: there are two with this id, or it has no title", where)
		}
		ids[p.ID] = true
		for x := range p.GridPos.W {
			for y := range p.GridPos.H {
				cell := fmt.Sprint(p.GridPos.X+x, ",", p.GridPos.Y+y)
				if other := cells[cell]; other != "" || p.GridPos.X+x >= 24 {
					t.Fatalf("%s overlaps %s, or the edge", where, other)
				}
				cells[cell] = where
			}
		}
		if p.Type == "row" {
			continue
		}
		if p.Description == "" || p.Datasource.UID != "${datasource}" || len(p.Targets) == 0 {
			t.Errorf("%s: description %q, datasource %q, %d queries", where, p.Description, p.Datasource.UID, len(p.Targets))
		}
		for _, q := range p.Targets {
			if q.Datasource.UID != "${datasource}" {
				t.Errorf("%s: a query of the datasource %q", where, q.Datasource.UID)
			}
			if strings.Contains(q.Expr, "weft_") && strings.Count(q.Expr, `instance=~"$node"`) != strings.Count(q.Expr, "weft_") {
				t.Errorf("%s: not every metric is of the chosen nodes: %s", where, q.Expr)
			}
			expectKnownMetrics(t, where, q.Expr)
		}
	}
}
