package kubernetes

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"time"

	"github.com/go-logr/logr"
	"k8s.io/apimachinery/pkg/runtime"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/klog/v2"

	"weft/internal/version"
)

// connect returns the API of the API server of a kubeconfig, or of the pod's service
// account, and the cluster's identity. Token files are read again by client-go, about once a
// minute.
func connect(kubeconfig string) (api nodeAPI, identity string, err error) {
	config, err := clientConfig(kubeconfig)
	if err != nil {
		return nil, "", err
	}
	if identity, err = identify(config); err != nil {
		return nil, "", err
	}
	config.UserAgent = "weft/" + version.Version
	config.ContentType, config.AcceptContentTypes = runtime.ContentTypeProtobuf, runtime.ContentTypeProtobuf
	config.WarningHandler = rest.NoWarnings{}
	// One node asks for one list and one watch, and writes now and then.
	config.QPS, config.Burst = 5, 10
	// No Timeout, which would end every watch. A connection that is dead is noticed by
	// HTTP/2's pings.
	config.Dial = (&net.Dialer{Timeout: 5 * time.Second, KeepAlive: 15 * time.Second}).DialContext
	api, err = newAPI(config)
	return api, identity, err
}

// identify returns the identity of the cluster. Its CA is made with it, and stays when the API
// server gets another address. Where there is none, the address must do.
func identify(config *rest.Config) (string, error) {
	ca := config.CAData
	if len(ca) == 0 && config.CAFile != "" {
		var err error
		if ca, err = os.ReadFile(config.CAFile); err != nil {
			return "", fmt.Errorf("read the API server's CA: %w", err)
		}
	}
	if len(ca) == 0 {
		ca = []byte(config.Host)
	}
	return fmt.Sprintf("%x", sha256.Sum256(ca)), nil
}

func clientConfig(kubeconfig string) (*rest.Config, error) {
	if kubeconfig == "" {
		config, err := rest.InClusterConfig()
		if errors.Is(err, rest.ErrNotInCluster) {
			return nil, errors.New("this process runs in no pod of a cluster; write the path of a kubeconfig under the configuration's key control.kubernetes.kubeconfig")
		}
		if err != nil {
			return nil, fmt.Errorf("use the pod's service account: %w", err)
		}
		return config, nil
	}
	rules := &clientcmd.ClientConfigLoadingRules{ExplicitPath: kubeconfig}
	config, err := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, nil).ClientConfig()
	if err != nil {
		return nil, fmt.Errorf("read the kubeconfig %s: %w", kubeconfig, err)
	}
	return config, nil
}

// quiet has client-go log nothing: it would write past weftd's log, in another form, and as
// often as it likes. What matters comes back as an error.
var quiet = sync.OnceFunc(func() {
	klog.SetLogger(logr.Discard())
	utilruntime.ErrorHandlers = nil
})
