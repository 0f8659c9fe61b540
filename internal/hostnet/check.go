package hostnet

import (
	"errors"
	"fmt"
	"os"
	"os/exec"

	"golang.org/x/sys/unix"
	"sigs.k8s.io/knftables"

	"weft/internal/marks"
)

// ErrPrerequisite is wrapped by every error that Check and Look return: the node lacks
// something that weftd can't do without and can't provide itself.
var ErrPrerequisite = errors.New("this node can't run weftd")

// The oldest kernel that weft supports.
const minKernelMajor, minKernelMinor = 5, 10

// Prerequisites are the errors that say what the node lacks, each with its remedy; nil is what
// it has.
type Prerequisites struct {
	Capability, Kernel, TUN, NFT error

	// TUNFeatures are the flags of TUNSETIFF (linux/if_tun.h) that the TUN driver knows.
	TUNFeatures uint32
}

// Look looks for all that weftd needs. It changes nothing.
func Look() Prerequisites {
	p := Prerequisites{Capability: checkCapability(), Kernel: checkKernel(kernelRelease())}
	p.TUNFeatures, p.TUN = checkTUN("/dev/net/tun")
	if p.Capability != nil {
		// Without the capability nft would fail whatever its state is.
		p.NFT = checkBinary("nft")
	} else {
		p.NFT = checkNFT()
	}
	return p
}

// Check returns an error that names all that the node lacks, each with its remedy,
// or nil. It changes nothing.
func Check() error {
	p := Look()
	return errors.Join(p.Kernel, p.TUN, p.Capability, p.NFT)
}

func lacks(format string, args ...any) error {
	return fmt.Errorf("%w: %w", ErrPrerequisite, fmt.Errorf(format, args...))
}

// checkCapability looks for CAP_NET_ADMIN among the thread's effective
// capabilities (capabilities(7)).
func checkCapability() error {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return lacks("read the capabilities: %w", err)
	}
	if data[0].Effective&(1<<unix.CAP_NET_ADMIN) == 0 {
		return lacks("CAP_NET_ADMIN is missing; run weftd as root, or grant it NET_ADMIN")
	}
	return nil
}

// checkTUN opens the TUN driver's device without making an interface, and returns the driver's
// features.
func checkTUN(path string) (features uint32, err error) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return 0, lacks("%s does not exist; load the module tun, or mount the host's device into the container", path)
	case errors.Is(err, unix.ENODEV) || errors.Is(err, unix.ENXIO):
		return 0, lacks("%s has no driver behind it; load the module tun: %w", path, err)
	case err != nil:
		return 0, lacks("%s can't be opened; allow the device (char 10:200 rwm) to weftd: %w", path, err)
	}
	defer f.Close()
	features, err = unix.IoctlGetUint32(int(f.Fd()), unix.TUNGETFEATURES)
	if err != nil {
		return 0, lacks("%s is not the TUN driver's device; create it with mknod %s c 10 200: %w", path, path, err)
	}
	return features, nil
}

func checkBinary(name string) error {
	if _, err := exec.LookPath(name); err != nil {
		return lacks("the program %s is not found; install the package nftables: %w", name, err)
	}
	return nil
}

// checkNFT lets nft prove itself on this kernel, without committing anything.
func checkNFT() error {
	if err := checkBinary("nft"); err != nil {
		return err
	}
	if _, err := knftables.New(knftables.InetFamily, marks.Table); err != nil {
		return lacks("nft does not work here; install nftables 1.0.1 or later and a kernel with nf_tables: %w", err)
	}
	return nil
}

func kernelRelease() string {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return ""
	}
	return unix.ByteSliceToString(u.Release[:])
}

func checkKernel(release string) error {
	var major, minor int
	if _, err := fmt.Sscanf(release, "%d.%d", &major, &minor); err != nil {
		return lacks("the kernel release %q is not understood; run Linux %d.%d or later", release, minKernelMajor, minKernelMinor)
	}
	if major < minKernelMajor || major == minKernelMajor && minor < minKernelMinor {
		return lacks("Linux %s is too old; run %d.%d or later", release, minKernelMajor, minKernelMinor)
	}
	return nil
}
