package monitoring

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/api"
	prometheus "github.com/prometheus/client_golang/api/prometheus/v1"
	"github.com/prometheus/common/model"
	"go.yaml.in/yaml/v4"

	"weft/internal/manual"
	"weft/internal/testnet"
)

const (
	// prometheusAddress is Prometheus' own, in the namespace outside.
	prometheusAddress = "127.0.0.1:9090"
	metricsPort       = "9339"
)

// server is a Prometheus beside a cluster. It scrapes the nodes and evaluates the rules once a
// second, and alerts fire at once.
type server struct {
	prometheus.API
	outside *testnet.Namespace
	client  *http.Client
	config  string
}

func startPrometheus(t *testing.T, n *testnet.Net, c *testnet.Cluster) *server {
	t.Helper()
	dir := filepath.Join(n.Dir(), "prometheus")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	// What is changed is how long an alert waits, and nothing else.
	atOnce := regexp.MustCompile(`(?m)^( +for:) .*$`).ReplaceAll(read(t, rulesFile), []byte("$1 0s"))
	if err := os.WriteFile(filepath.Join(dir, "weft-rules.yaml"), atOnce, 0o644); err != nil {
		t.Fatal(err)
	}
	s := &server{outside: c.Outside, config: filepath.Join(dir, "prometheus.yml")}
	var targets []string
	for _, node := range c.Nodes() {
		targets = append(targets, net.JoinHostPort(node.Entry().Endpoint.Addr().String(), metricsPort))
	}
	s.configure(t, targets)
	s.client = &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
		return c.Outside.Dial(ctx, network, address)
	}}}
	t.Cleanup(s.client.CloseIdleConnections)
	client, err := api.NewClient(api.Config{Address: "http://" + prometheusAddress, Client: s.client})
	if err != nil {
		t.Fatal(err)
	}
	s.API = prometheus.NewAPI(client)
	ready := func(ctx context.Context) error { return s.ask(ctx, http.MethodGet, "/-/ready") }
	service := n.AddService("prometheus", filepath.Join(dir, "prometheus.log"), ready, func() (*exec.Cmd, error) {
		return c.Outside.Command(context.Background(), "prometheus", "--config.file="+s.config, "--storage.tsdb.path="+filepath.Join(dir, "data"),
			"--web.listen-address="+prometheusAddress, "--web.enable-lifecycle", "--log.level=warn"), nil
	})
	if err := service.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	return s
}

// configure writes the configuration that docs/METRICS.md shows, with other targets.
func (s *server) configure(t *testing.T, targets []string) {
	t.Helper()
	block := regexp.MustCompile("(?s)```yaml\n# prometheus.yml\n(.*?)```").FindStringSubmatch(manual.Read(t, page))
	if block == nil {
		t.Fatalf("%s shows no prometheus.yml", page)
	}
	var config map[string]any
	if err := yaml.Unmarshal([]byte(block[1]), &config); err != nil {
		t.Fatal(err)
	}
	config["global"] = map[string]any{"scrape_interval": "1s", "evaluation_interval": "1s"}
	config["rule_files"] = []string{"weft-rules.yaml"}
	config["scrape_configs"].([]any)[0].(map[string]any)["static_configs"] = []any{map[string]any{"targets": targets}}
	text, err := yaml.Marshal(config)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(s.config, text, 0o644); err != nil {
		t.Fatal(err)
	}
}

// reload has Prometheus read its configuration again.
func (s *server) reload(t *testing.T) {
	t.Helper()
	if err := s.ask(t.Context(), http.MethodPost, "/-/reload"); err != nil {
		t.Fatal(err)
	}
}

func (s *server) ask(ctx context.Context, method, path string) error {
	request, err := http.NewRequestWithContext(ctx, method, "http://"+prometheusAddress+path, nil)
	if err != nil {
		return err
	}
	response, err := s.client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return errors.New(response.Status)
	}
	return nil
}

// series is what a query returns now.
func (s *server) series(ctx context.Context, query string) (model.Vector, error) {
	value, _, _, err := s.Query(ctx, query, time.Now())
	if err != nil {
		return nil, fmt.Errorf("%s: %w", query, err)
	}
	vector, ok := value.(model.Vector)
	if !ok {
		return nil, fmt.Errorf("%s: it returns a %s", query, value.Type())
	}
	return vector, nil
}

// firing returns the nodes of each alert that has fired since a point in time.
func (s *server) firing(ctx context.Context, since time.Time) (map[string][]string, error) {
	all, err := s.series(ctx, fmt.Sprintf(`group by (alertname, instance) (last_over_time(ALERTS{alertstate="firing"}[%dms]))`, time.Since(since).Milliseconds()+1))
	if err != nil {
		return nil, err
	}
	names := map[string][]string{}
	for _, a := range all {
		name := string(a.Metric["alertname"])
		names[name] = append(names[name], strings.TrimSuffix(string(a.Metric["instance"]), ":"+metricsPort))
	}
	return names, nil
}

// awaitScrape returns when the server has scraped each of so many nodes once more.
func (s *server) awaitScrape(t *testing.T, nodes int) {
	t.Helper()
	began := time.Now()
	s.await(t, "a scrape", func(ctx context.Context) error {
		got, err := s.series(ctx, fmt.Sprintf(`count(count_over_time(weft_build_info[%dms])) == %d`, time.Since(began).Milliseconds()+1, nodes))
		if err == nil && len(got) == 0 {
			err = errors.New("not yet")
		}
		return err
	})
}

func (s *server) await(t *testing.T, what string, cond func(context.Context) error) {
	t.Helper()
	if err := testnet.Wait(t.Context(), what, cond); err != nil {
		t.Fatal(err)
	}
}
