package sysdump

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/url"
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
		{"a URL", "proxy http://me:pw@proxy:3128 and https://etcd:2379/", "proxy http://REMOVED@proxy:3128 and https://etcd:2379/"},
		{"a token", "token is eyJhbGciOiJSUzI1.eyJpc3MiOiJrdWJl.c2lnbmF0dXJl!", "token is REMOVED!"},
		{"a header", "Authorization: Bearer abc.def\nAccept: x", "Authorization: REMOVED\nAccept: x"},
		{"a variable", `Environment="HTTP_PASSWORD=two words" A_TOKEN=x B=y`, `Environment="HTTP_PASSWORD=REMOVED" A_TOKEN=REMOVED B=y`},
		{"an argument", `--cni-extra={"type": "x", "apiToken": "abc"}`, `--cni-extra={"type": "x", "apiToken": "REMOVED"}`},
		{"a URL with slashes", `endpoint https://root:pa/ss@etcd:2379 refused`, `endpoint https://REMOVED@etcd:2379 refused`},
		{"a URL with quotes", `parse "https://root:p@ss'wo\"rd@etcd:2379": invalid`, `parse "https://REMOVED@etcd:2379": invalid`},
		{"an endpoint", `dial root:pw@etcd:2379`, `dial REMOVED@etcd:2379`},
		{"addresses and interfaces", `3: veth0@if2: inet6 fe80::1 user@1000.service "https://a:1"`, `3: veth0@if2: inet6 fe80::1 user@1000.service "https://a:1"`},
		{"a query", `GET https://x/y?access_key=AKIA123&sig=deadbeef HTTP`, `GET https://x/y?access_key=REMOVED HTTP`},
		{"a signature", `GET /y?sig=deadbeef`, `GET /y?sig=REMOVED`},
		{"another kind of authorization", "Proxy-authorization: Token abcdef", "Proxy-authorization: REMOVED"},
		{"headers in a log", `msg="sent Cookie: a=b; c=d" peer=x`, `msg="sent Cookie: REMOVED" peer=x`},
		{"a header with a key", "X-Api-Key: abcdef\n", "X-Api-Key: REMOVED\n"},
		{"a field", "password: hunter3, then", "password: REMOVED, then"},
		{"after a name", `password "hunter3" and 'x'`, `password "REMOVED" and 'x'`},
		{"after a name in a log", `error="password \"hun\\\"ter3\" x"`, `error="password \"REMOVED\" x"`},
		{"an option", `weftd --etcd-password hunter3 --node x`, `weftd --etcd-password REMOVED --node x`},
		{"an option in a list", `["--token","hunter3","x"]`, `["--token","REMOVED","x"]`},
		{"variables", "ETCD_PASS=hunter3 DB_PWD=x MYKEY=abc A=b", "ETCD_PASS=REMOVED DB_PWD=REMOVED MYKEY=REMOVED A=b"},
		{"a comment", `comment "token: abc def" x`, `comment "token: REMOVED" x`},
		{"JSON with quotes", `{"apiToken":"ab\"cd","x":1}`, `{"apiToken":"REMOVED","x":1}`},
		{"JSON that ends with a backslash", `{"apiToken":"ab\\","x":1}`, `{"apiToken":"REMOVED","x":1}`},
		{"JSON in JSON", `{"a":"{\"token\":\"ab\\\"cd\",\"x\":1}"}`, `{"a":"{\"token\":\"REMOVED\",\"x\":1}"}`},
		{"a list", "{\"tokens\": [\n\"abc\",\n[\"d\"]], \"x\": 1}", `{"tokens": "REMOVED", "x": 1}`},
		{"a number", `{"password":123456,"x":1}`, `{"password":"REMOVED","x":1}`},
		{"quotes of YAML", `{'token': 'abc', x: 1}`, `{'token': 'REMOVED', x: 1}`},
		{"a path", `--password-file=/etc/weft/pw passwordFile: "geheim"`, `--password-file=/etc/weft/pw passwordFile: "REMOVED"`},
		{"a key of PGP", "-----BEGIN PGP PRIVATE KEY BLOCK-----\nxyz\n-----END PGP PRIVATE KEY BLOCK-----.", "REMOVED."},
		{"an OpenSSH key in quotes", `"-----BEGIN OPENSSH PRIVATE KEY-----\nabc\n-----END OPENSSH PRIVATE KEY-----\n"`, `"REMOVED\n"`},
		{"a public key", `"key":"SHA256:abc" msg="key changed" key=SHA256:abc`, `"key":"SHA256:abc" msg="key changed" key=SHA256:abc`},
		{"settings of a unit", "PrivateTmp=yes\nKeyringMode=private\nPassCredentials=no\nSigQ:\t0/1\n", "PrivateTmp=yes\nKeyringMode=private\nPassCredentials=no\nSigQ:\t0/1\n"},
		{"a metric", `weft_warnings{code="secret_readable"} 1`, `weft_warnings{code="secret_readable"} 1`},
		{"prose", "the API server refuses the node's token: Unauthorized", "the API server refuses the node's token: Unauthorized"},
	} {
		if got := string(s.scrub([]byte(tt.text))); got != tt.want {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
	}
}

// A secret that the configuration names is also found as programs print it.
func TestFormsOfSecrets(t *testing.T) {
	const secret = `a"b<c&d/e+f g`
	s := scrubberOf([][]byte{[]byte(secret)})
	inJSON := func(text string) string {
		b, err := json.Marshal(text)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	for name, text := range map[string]string{
		"quotes":              fmt.Sprintf("login %q", secret),
		"quotes in a log":     fmt.Sprintf("error=%q", fmt.Sprintf("login %q", secret)),
		"JSON":                inJSON(secret),
		"JSON of a log":       inJSON(fmt.Sprintf("error=%q", fmt.Sprintf("login %q", secret))),
		"JSON with HTML":      `"a\"b<c&d/e+f g"`,
		"a query":             url.QueryEscape(secret),
		"a path":              url.PathEscape(secret),
		"a user":              url.User(secret).String(),
		"the base64 of URLs":  base64.URLEncoding.EncodeToString([]byte(secret)),
		"the base64 of files": base64.StdEncoding.EncodeToString([]byte(secret)),
	} {
		if got := string(s.scrub([]byte(text))); !strings.Contains(got, removed) || strings.Contains(got, "b<c") || strings.Contains(got, "%26d") || strings.Contains(got, "u0026") {
			t.Errorf("%s: %q", name, got)
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
		{"lists of names and values", "env: [{name: TOKEN, value: geheim}, {name: MODE, value: fast}]\n", "value: fast", "geheim"},
		{"the same in JSON", `{"env": [{"name": "TOKEN", "value": "geheim"}, {"name": "MODE", "value": "fast"}]}`, `"fast"`, "geheim"},
		{"arguments", "args: [--token, geheim, --mode, fast]\n", "--mode, fast", "geheim"},
		{"the same in JSON", `{"args": ["--token", "geheim", "--mode", "fast"]}`, `"fast"`, "geheim"},
		{"behind a file", `{"tokenFile": {"x": "geheim"}, "keyFile": "/k"}`, `"keyFile": "/k"`, "geheim"},
		{"what is no path", "passwordFile: geheim\nkubeconfig: 'apiVersion: geheim'\nnode: a\n", "node: a", "geheim"},
		{"a key in two lines", "? password\n: geheim\nnode: a\n", "node: a", "geheim"},
		{"a public key", "publicKey: abc\nkey: geheim\n", "publicKey: abc", "geheim"},
		{"switches", "useToken: true\ntoken: geheim\n", "useToken: true", "geheim"},
		{"an alias of what it is in", "token: &a [geheim, *a]\nnode: a\n", "node: a", "geheim"},
	} {
		got, err := withoutSecrets([]byte(tt.text))
		if err != nil || !strings.Contains(string(got), tt.want) || strings.Contains(string(got), tt.not) {
			t.Errorf("%s: %v\n%s", tt.name, err, got)
		}
	}
	for key := range strings.FieldsSeq("pass pwd pw psk passphrase jwt cookie apikey accessKeyId sig encryptionKeys key keys keyring nodeKey64 dbPass etcd_pw secretPath community") {
		for _, text := range []string{fmt.Sprintf(`{%q: ["geheim"]}`, key), key + ": geheim\n"} {
			if got, err := withoutSecrets([]byte(text)); err != nil || strings.Contains(string(got), "geheim") {
				t.Errorf("%s: %v\n%s", text, err, got)
			}
		}
	}
	if got, err := withoutSecrets([]byte("a: [\npassword: geheim")); err == nil || len(got) > 0 || strings.Contains(err.Error(), "geheim") {
		t.Errorf("what can't be parsed: %q, %v", got, err)
	}
}
