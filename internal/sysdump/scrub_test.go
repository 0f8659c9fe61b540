package sysdump

import (
	"strings"
	"testing"
)

// What the configuration names is removed wherever it is, and what looks like a secret too.
func TestSecretsAreRemoved(t *testing.T) {
	const key = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIJw1secretsecretsecret\n-----END PRIVATE KEY-----\n"
	s := scrubberOf([][]byte{[]byte("hunter2\n"), []byte(key), []byte("abc"), nil})
	for _, tt := range []struct{ name, text, want string }{
		{"a password", "user u, password hunter2.", "user u, password REMOVED."},
		{"in base64", "data: aHVudGVyMg==", "data: REMOVED"},
		{"a key", "before\n" + key + "after", "before\nREMOVED\nafter"},
		{"a line of a key", "MC4CAQAwBQYDK2VwBCIEIJw1secretsecretsecret", "REMOVED"},
		{"too short to know", "abcdef", "abcdef"},
		{"another's key", `"-----BEGIN EC PRIVATE KEY-----\nxyz\n-----END EC PRIVATE KEY-----"`, `"REMOVED"`},
		{"half a key", "-----BEGIN RSA PRIVATE KEY-----\nxyz", "REMOVED"},
		{"a certificate", "-----BEGIN CERTIFICATE-----\nxyz\n", "-----BEGIN CERTIFICATE-----\nxyz\n"},
		{"a URL", "proxy http://me:pw@proxy:3128 and https://etcd:2379/x@y", "proxy http://REMOVED@proxy:3128 and https://etcd:2379/x@y"},
		{"a token", "token is eyJhbGciOiJSUzI1.eyJpc3MiOiJrdWJl.c2lnbmF0dXJl!", "token is REMOVED!"},
		{"a header", "Authorization: Bearer abc.def\nAccept: x", "Authorization: Bearer REMOVED\nAccept: x"},
		{"a variable", `Environment="HTTP_PASSWORD=two words" A_TOKEN=x B=y`, `Environment="HTTP_PASSWORD=REMOVED" A_TOKEN=REMOVED B=y`},
		{"an argument", `--cni-extra={"type": "x", "apiToken": "abc"}`, `--cni-extra={"type": "x", "apiToken": REMOVED}`},
		{"a metric", `weft_warnings{code="secret_readable"} 1`, `weft_warnings{code="secret_readable"} 1`},
		{"prose", "the API server refuses the node's token: Unauthorized", "the API server refuses the node's token: Unauthorized"},
	} {
		if got := string(s.scrub([]byte(tt.text))); got != tt.want {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
	}
}

// Of files with keys and values, the values of keys that look secret are removed, and comments.
func TestFilesWithoutSecrets(t *testing.T) {
	for _, tt := range []struct{ name, text, want, not string }{
		{"YAML", "node: node1 # geheim\nkeyFile: /etc/weft/node.key\ncni:\n  extra:\n  - {type: sbr, token: geheim}\n", "keyFile: /etc/weft/node.key", "geheim"},
		{"a block", "etcd:\n  password: |\n    geheim\n    geheim2\n  endpoints: [a]\n", "endpoints: [a]", "geheim"},
		{"what is behind", "secret: {inner: [geheim, 7777]}\nlisten: 0.0.0.0:9338\n", "listen: 0.0.0.0:9338", "geheim"},
		{"an alias", "name: &x geheim\ntoken: *x\n", "token: ", "geheim"},
		{"JSON", "{\n\t\"type\": \"calico\", \"etcd_key_file\": \"/k\", \"policy\": {\"k8s_auth_token\": \"geheim\"}, \"pin\": 5}", `"etcd_key_file": "/k"`, "geheim"},
		{"JSON in JSON", `{"JSON": "{\"type\":\"sbr\",\"token\":\"geheim\"}"}`, `\"type\":\"sbr\"`, "geheim"},
		{"a list", `{"tokens": ["geheim", 5], "cniVersion": "1.0.0"}`, `"cniVersion": "1.0.0"`, "geheim"},
	} {
		got, err := withoutSecrets([]byte(tt.text))
		if err != nil || !strings.Contains(string(got), tt.want) || strings.Contains(string(got), tt.not) {
			t.Errorf("%s: %v\n%s", tt.name, err, got)
		}
	}
	if got, err := withoutSecrets([]byte("a: [\npassword: geheim")); err == nil || len(got) > 0 || strings.Contains(err.Error(), "geheim") {
		t.Errorf("what can't be parsed: %q, %v", got, err)
	}
}
