// SPDX-License-Identifier: Apache-2.0

// Package cluster runs a whole Kubernetes on this machine, with the Prometheus Operator and a Prometheus, from nothing and
// without a network: API server, controllers, scheduler, kubelet, containerd and pods live in namespaces of their own that
// end with the program. The stories of how the exporter is used are its tests.
package cluster

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const (
	// stageVariable tells the program which part it plays: none is the one that was called, which starts the init, which starts the test.
	stageVariable = "CLUSTER_STAGE"
	stageInit     = "init"
	stageInside   = "inside"

	// cgroupPrefix begins the name of the control groups, which are all that is visible outside of the namespaces. The number of the process
	// that was called follows, so that two runs don't meet and those of a run that was killed can be told.
	cgroupPrefix   = "balena-exporter-e2e-"
	cgroupVariable = "CLUSTER_CGROUP"
	cgroupRoot     = "/sys/fs/cgroup"

	// state is where the cluster keeps all it has, in memory: gone with the namespaces. /run is a file system of their own.
	state = "/run/cluster"
)

// nodeAddress is the machine's in the cluster, on an interface whose other end leads nowhere: the API server takes no loopback address.
const nodeAddress = "10.88.0.1"

// Isolated calls run inside of network, mount and process namespaces of its own, as a child of their init, and returns what it returned.
// Whatever happens to any of the processes, all others end, and with them all mounts and interfaces. Nothing of the host is changed.
func Isolated(run func() int) (int, error) {
	switch os.Getenv(stageVariable) {
	case "":
		return outside()
	case stageInit:
		return inner()
	default:
		return run(), nil
	}
}

// outside starts the init of the namespaces and clears its control groups away.
func outside() (int, error) {
	if err := Missing(); err != nil {
		return 1, err
	}
	for _, path := range cgroups("*") {
		name := filepath.Base(path)
		if pid, err := strconv.Atoi(strings.TrimPrefix(name, cgroupPrefix)); err == nil && syscall.Kill(pid, 0) != nil {
			removeCgroups(name) // of a run that was killed
		}
	}

	restore, err := delegate()
	if err != nil {
		return 1, err
	}
	defer restore()
	name := cgroupPrefix + strconv.Itoa(os.Getpid())
	defer removeCgroups(name)
	runtime.LockOSThread() // the kernel's Pdeathsig is about the thread
	first := exec.Command("/proc/self/exe", os.Args[1:]...)
	first.Env = append(os.Environ(), stageVariable+"="+stageInit, cgroupVariable+"="+name)
	first.Stdin, first.Stdout, first.Stderr = os.Stdin, os.Stdout, os.Stderr
	first.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWPID | syscall.CLONE_NEWNET | syscall.CLONE_NEWIPC,
		Pdeathsig:  syscall.SIGKILL,
	}
	if err := first.Start(); err != nil {
		return 1, fmt.Errorf("new namespaces: %w", err)
	}
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT)
	go func() {
		for range signals {
			first.Process.Kill()
		}
	}()
	return exitCode(first.Wait())
}

func exitCode(err error) (int, error) {
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return max(exit.ExitCode(), 1), nil
	}
	return 0, err
}

// Missing says what this machine lacks to run a cluster.
func Missing() error {
	if os.Geteuid() != 0 {
		return errors.New("a cluster needs root: it makes namespaces, mounts and control groups")
	}
	var missing []string
	for _, program := range []string{"containerd", "ctr", "runc", "iptables", "ip", "buildah", "busybox", "curl", pluginDirectory + "/bridge"} {
		if _, err := exec.LookPath(program); err != nil {
			missing = append(missing, program)
		}
	}
	if len(missing) > 0 {
		return fmt.Errorf("a cluster needs %s: make packages installs them on Debian", strings.Join(missing, ", "))
	}
	if _, err := hierarchies(); err != nil {
		return err
	}
	return nil
}

// hierarchies returns the directories below which there are control groups: one on version 2, one a controller on version 1.
func hierarchies() ([]string, error) {
	if _, err := os.Stat(filepath.Join(cgroupRoot, "cgroup.controllers")); err == nil {
		return []string{cgroupRoot}, nil
	}
	var found []string
	for _, controller := range []string{"cpu", "cpuacct", "cpuset", "memory", "devices", "freezer", "blkio", "pids", "systemd", "hugetlb"} {
		if path := filepath.Join(cgroupRoot, controller); exists(filepath.Join(path, "cgroup.procs")) {
			found = append(found, path)
		}
	}
	if len(found) == 0 {
		return nil, fmt.Errorf("a cluster needs control groups: there are none at %s", cgroupRoot)
	}
	return found, nil
}

// delegate has version 2 hand the controllers that kubelet asks for on to groups below the root, where that is not so yet. The function it
// returns takes them back.
func delegate() (restore func(), err error) {
	const file = cgroupRoot + "/cgroup.subtree_control"
	if cgroupV1() {
		return func() {}, nil
	}
	there, err := os.ReadFile(filepath.Join(cgroupRoot, "cgroup.controllers"))
	if err != nil {
		return nil, err
	}
	enabled, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var added []string
	restore = func() {
		for _, controller := range added {
			os.WriteFile(file, []byte("-"+controller), 0) // unless somebody else needs it by now
		}
	}
	for _, controller := range []string{"cpuset", "cpu", "memory", "pids", "hugetlb"} {
		if !slices.Contains(strings.Fields(string(there)), controller) || slices.Contains(strings.Fields(string(enabled)), controller) {
			continue
		}
		if err := os.WriteFile(file, []byte("+"+controller), 0); err != nil {
			restore()
			return nil, fmt.Errorf("a cluster needs control groups of its own, and %w (in a container: run it with the host's cgroup namespace)", err)
		}
		added = append(added, controller)
	}
	return restore, nil
}

// cgroupV1 tells whether each controller has a hierarchy of its own.
func cgroupV1() bool { return !exists(filepath.Join(cgroupRoot, "cgroup.controllers")) }

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// cgroups returns our control groups of a process, or all of them for "*", in all hierarchies.
func cgroups(process string) []string {
	var found []string
	for _, parent := range []string{cgroupRoot, cgroupRoot + "/*"} {
		paths, err := filepath.Glob(filepath.Join(parent, cgroupPrefix+process))
		if err != nil {
			panic(err) // a pattern that is wrong is wrong always
		}
		found = append(found, paths...)
	}
	return found
}

// removeCgroups removes the group of that name in all hierarchies. The kernel takes a moment to let go of processes that were killed.
func removeCgroups(name string) {
	roots := cgroups(strings.TrimPrefix(name, cgroupPrefix))
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	for range 50 {
		left := false
		for _, root := range roots {
			left = !removeTree(root) || left
		}
		if !left {
			return
		}
		<-ticker.C
	}
	fmt.Fprintf(os.Stderr, "control groups %s are left below %s\n", name, cgroupRoot)
}

// removeTree removes the directories of a tree whose files are the kernel's.
func removeTree(path string) bool {
	entries, err := os.ReadDir(path)
	if err != nil {
		return os.IsNotExist(err)
	}
	for _, entry := range entries {
		if entry.IsDir() {
			removeTree(filepath.Join(path, entry.Name()))
		}
	}
	return syscall.Rmdir(path) == nil
}

// inner is the init: it furnishes the namespaces, starts the test and buries the dead until the test is among them.
func inner() (int, error) {
	executable, err := os.Executable()
	if err != nil {
		return 1, err
	}
	if err := furnish(os.Getenv(cgroupVariable)); err != nil {
		return 1, err
	}
	temporary := filepath.Join(state, "tmp")
	if err := errors.Join(os.Mkdir(temporary, 0o755), os.Setenv("TMPDIR", temporary), os.Setenv(stageVariable, stageInside)); err != nil {
		return 1, err
	}
	test, err := os.StartProcess(executable, os.Args, &os.ProcAttr{Files: []*os.File{os.Stdin, os.Stdout, os.Stderr}})
	if err != nil {
		return 1, err
	}
	for {
		var status syscall.WaitStatus
		switch pid, err := syscall.Wait4(-1, &status, 0, nil); {
		case err == syscall.EINTR:
		case err != nil:
			return 1, fmt.Errorf("wait: %w", err)
		case pid == test.Pid && status.Signaled():
			return 1, fmt.Errorf("the test was ended by signal %d", status.Signal())
		case pid == test.Pid:
			return status.ExitStatus(), nil
		}
	}
}

// sysctls are what kubelet insists on. It finds them on files bound over those of the host, and has nothing to change.
var sysctls = map[string]string{
	"vm/overcommit_memory":      "1",
	"vm/panic_on_oom":           "0",
	"kernel/panic":              "10",
	"kernel/panic_on_oops":      "1",
	"kernel/keys/root_maxkeys":  "1000000",
	"kernel/keys/root_maxbytes": "25000000",
}

func furnish(cgroup string) error {
	if err := syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("making mounts private: %w", err)
	}
	if err := syscall.Mount("proc", "/proc", "proc", 0, ""); err != nil {
		return fmt.Errorf("mounting /proc: %w", err)
	}
	// Where containerd, the network plugins and kubelet leave things behind.
	for _, path := range []string{"/run", "/var/lib", "/var/log"} {
		if err := syscall.Mount("tmpfs", path, "tmpfs", 0, ""); err != nil {
			return fmt.Errorf("mounting %s: %w", path, err)
		}
	}
	if err := os.Mkdir(state, 0o755); err != nil {
		return err
	}
	for name, value := range sysctls {
		file := filepath.Join(state, "sysctl-"+strings.ReplaceAll(name, "/", "-"))
		if err := os.WriteFile(file, []byte(value+"\n"), 0o600); err != nil {
			return err
		}
		if over := filepath.Join("/proc/sys", name); exists(over) {
			if err := syscall.Mount(file, over, "", syscall.MS_BIND, ""); err != nil {
				return fmt.Errorf("mounting over %s: %w", over, err)
			}
		}
	}
	for _, arguments := range []string{
		"link set lo up",
		"link add node type veth peer name nowhere",
		"link set nowhere up",
		"link set node up",
		"address add " + nodeAddress + "/24 dev node",
		"route add default dev node",
	} {
		if said, err := exec.Command("ip", strings.Fields(arguments)...).CombinedOutput(); err != nil {
			return fmt.Errorf("ip %s: %w: %s", arguments, err, said)
		}
	}
	if err := os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0); err != nil {
		return err
	}
	parents, err := hierarchies()
	if err != nil {
		return err
	}
	for _, parent := range parents {
		group := filepath.Join(parent, cgroup)
		if err := os.Mkdir(group, 0o755); err != nil {
			return fmt.Errorf("control group: %w", err)
		}
		// On version 1 a new group of cpuset has no CPUs and no memory.
		for _, file := range []string{"cpuset.cpus", "cpuset.mems"} {
			if all, err := os.ReadFile(filepath.Join(parent, file)); err == nil && cgroupV1() {
				if err := os.WriteFile(filepath.Join(group, file), all, 0); err != nil {
					return fmt.Errorf("control group: %w", err)
				}
			}
		}
	}
	return nil
}
