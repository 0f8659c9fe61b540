package config

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"time"

	"weft/internal/strict"
)

// networkName is what the CNI specification allows as a network's name.
var networkName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$`)

func setCNIName(c *Config, text string) error {
	c.CNI.Name = text
	if !networkName.MatchString(text) {
		return fmt.Errorf("%s is not a valid network name; write at most 63 letters, digits, '_', '.' and '-', such as weft", strict.Quote(text))
	}
	return nil
}

// pluginName can't lead out of a folder.
var pluginName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$`)

func addChained(c *Config, text string) error {
	if err := checkPlugin(text); err != nil {
		return err
	}
	if slices.Contains(c.CNI.Chain, text) {
		return fmt.Errorf("%s is in the list already; remove one of the two", text)
	}
	c.CNI.Chain = append(c.CNI.Chain, text)
	return nil
}

func checkPlugin(name string) error {
	switch {
	case !pluginName.MatchString(name):
		return fmt.Errorf("%s is not a valid plugin name; write at most 63 letters, digits, '_', '.' and '-', such as portmap, and its folder under cni.binDir", strict.Quote(name))
	case name == "weft-cni":
		return errors.New("weft-cni is the first plugin in any case; remove it from the list of those behind it")
	}
	return nil
}

func addExtra(c *Config, text string) error {
	var entry struct {
		Type *string `json:"type"`
	}
	var compact bytes.Buffer
	if err := json.Unmarshal([]byte(text), &entry); err != nil || json.Compact(&compact, []byte(text)) != nil || entry.Type == nil {
		return fmt.Errorf("%s is not a plugin's entry; write its name under type, such as {type: istio-cni}", keysOf(text))
	}
	if err := checkPlugin(*entry.Type); err != nil {
		return err
	}
	if slices.Contains(c.CNI.Chain, *entry.Type) {
		return fmt.Errorf("%s is in cni.chain already; remove it there, since the plugin would be called twice", *entry.Type)
	}
	c.CNI.Extra = append(c.CNI.Extra, CNIEntry{Type: *entry.Type, JSON: compact.String()})
	return nil
}

// keysOf describes a JSON object by its keys. Its values may be secrets of the plugin.
func keysOf(text string) string {
	var object map[string]any
	if json.Unmarshal([]byte(text), &object) != nil || object == nil {
		return "what is not a JSON object"
	}
	if len(object) == 0 {
		return "a mapping without keys"
	}
	return "the mapping with the keys " + strict.Quote(strings.Join(slices.Sorted(maps.Keys(object)), ", "))
}

func setCooldown(c *Config, text string) error {
	const most = 24 * time.Hour
	cooldown, err := time.ParseDuration(text)
	if err != nil || cooldown < 0 || cooldown > most || cooldown%time.Second != 0 {
		return fmt.Errorf("%s is not a number of whole seconds up to a day; write one with its unit, such as 120s or 2m", strict.Quote(text))
	}
	c.IPAM.Cooldown = cooldown
	return nil
}

func addReserved(c *Config, text string) error {
	if addr, err := netip.ParseAddr(text); err == nil && addr.Zone() == "" {
		addr = addr.Unmap()
		c.IPAM.Reserved = append(c.IPAM.Reserved, netip.PrefixFrom(addr, addr.BitLen()))
		return nil
	}
	p, err := strict.ParsePrefix(text)
	if err != nil {
		return fmt.Errorf("%w; or a single address", err)
	}
	c.IPAM.Reserved = append(c.IPAM.Reserved, p)
	return nil
}
