package testnet

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"go.yaml.in/yaml/v4"
)

// The stand-ins do of weftd and weft-cni what a Node sees of them, and no networking.

// standInDaemon writes a conflist, answers /readyz and ends on SIGTERM.
func standInDaemon() int {
	data, err := os.ReadFile(os.Args[len(os.Args)-1])
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 2
	}
	var config struct {
		RunDir        string `yaml:"runDir"`
		Encapsulation string
		CNI           struct {
			ConfDir string `yaml:"confDir"`
			Name    string
		}
		Metrics struct{ Listen string }
	}
	if err := yaml.Unmarshal(data, &config); err != nil || config.Encapsulation != "vxlan" {
		fmt.Fprintf(os.Stderr, "bad encapsulation %q, %v\n", config.Encapsulation, err)
		return 2
	}
	conflist, _ := json.Marshal(map[string]any{
		"cniVersion": "1.0.0", "name": config.CNI.Name,
		"plugins": []any{map[string]any{"type": "weft-cni", "runDir": config.RunDir}},
	})
	if err := os.WriteFile(filepath.Join(config.CNI.ConfDir, "10-weft.conflist"), conflist, 0o644); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	terminated := make(chan os.Signal, 1)
	signal.Notify(terminated, syscall.SIGTERM)
	http.HandleFunc("/readyz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	go func() { fmt.Fprintln(os.Stderr, http.ListenAndServe(config.Metrics.Listen, nil)) }()
	fmt.Fprintln(os.Stderr, "weftd is forwarding")
	<-terminated
	return 0
}

// standInPlugin gives every pod the same address and records where it was run.
func standInPlugin() int {
	var config struct{ RunDir string }
	if err := json.NewDecoder(os.Stdin).Decode(&config); err != nil {
		fmt.Println(`{"code": 6, "msg": "bad configuration"}`)
		return 1
	}
	namespace, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		return 1
	}
	command := os.Getenv("CNI_COMMAND")
	record := namespace + " " + os.Getenv("CNI_NETNS")
	if err := os.WriteFile(filepath.Join(config.RunDir, command), []byte(record), 0o644); err != nil {
		return 1
	}
	if command == "ADD" {
		if _, err := os.Stat(filepath.Join(config.RunDir, "full")); err == nil {
			fmt.Println(`{"cniVersion": "1.0.0", "code": 11, "msg": "no address is free"}`)
			return 1
		}
		fmt.Println(`{"cniVersion": "1.0.0", "ips": [{"address": "10.244.1.5/32"}, {"address": "fd00:244:1::5/128"}]}`)
	}
	return 0
}
