// kube-apiserver with its store inside: the upstream command plus an embedded etcd in the same process.
//
// One more flag than upstream, --etcd-directory. etcd listens on a Unix socket in that directory and nowhere else, so
// that neither a port nor another user of the machine comes near it. Nothing is closed in order at the end: the store
// has to survive a SIGKILL anyway (what was written is in the page cache), so every end is the same end.
package main

import (
	"errors"
	"fmt"
	"net/url"
	"os"

	"github.com/spf13/cobra"
	"go.etcd.io/etcd/server/v3/embed"
	"k8s.io/component-base/cli"
	_ "k8s.io/component-base/logs/json/register"
	_ "k8s.io/component-base/metrics/prometheus/clientgo"
	_ "k8s.io/component-base/metrics/prometheus/version"
	"k8s.io/kubernetes/cmd/kube-apiserver/app"
)

// socket is relative to the working directory: a Unix socket's path is limited to 107 bytes, a directory's is not.
const socket = "etcd.sock"

func main() {
	command := app.NewAPIServerCommand()
	directory := command.Flags().String("etcd-directory", "", "Directory of the embedded etcd; becomes the working directory.")
	serve := command.RunE
	command.RunE = func(cmd *cobra.Command, args []string) error {
		if err := startEtcd(*directory); err != nil {
			return fmt.Errorf("etcd in %q: %w", *directory, err)
		}
		if err := cmd.Flags().Set("etcd-servers", "unix://"+socket); err != nil {
			return err
		}
		return serve(cmd, args)
	}
	os.Exit(cli.Run(command))
}

// startEtcd returns once the store answers; if it fails later, the process ends.
func startEtcd(directory string) error {
	if err := os.MkdirAll(directory, 0o700); err != nil {
		return err
	}
	if err := os.Chdir(directory); err != nil {
		return err
	}
	config := embed.NewConfig()
	config.Dir = "data"
	config.ListenPeerUrls = nil // a cluster of one
	config.ListenClientUrls = []url.URL{{Scheme: "unix", Host: socket}}
	config.AdvertiseClientUrls = config.ListenClientUrls
	config.TickMs, config.ElectionMs = 10, 100 // nobody to wait for
	config.UnsafeNoFsync = true                // the data is thrown away with the lab
	config.LogLevel = "error"
	etcd, err := embed.StartEtcd(config)
	if err != nil {
		return err
	}
	go func() {
		fmt.Fprintln(os.Stderr, "etcd failed:", <-etcd.Err())
		os.Exit(1)
	}()
	select {
	case <-etcd.Server.ReadyNotify():
		return nil
	case <-etcd.Server.StopNotify():
		return errors.New("stopped while starting")
	}
}
