// SPDX-License-Identifier: Apache-2.0

// The registry serves an OCI registry over plain HTTP until it is stopped, and keeps its content in a directory. Tests
// publish to it and install from it.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/distribution/distribution/v3/configuration"
	"github.com/distribution/distribution/v3/registry/handlers"
	_ "github.com/distribution/distribution/v3/registry/storage/driver/filesystem"
	"github.com/sirupsen/logrus"
)

func main() {
	listen := flag.String("listen", "127.0.0.1:0", "loopback `address` to listen on")
	storage := flag.String("storage", "", "`directory` of the content")
	flag.Parse()
	if err := serve(*listen, *storage); err != nil {
		fmt.Fprintf(os.Stderr, "registry: error: %v\n", err)
		os.Exit(1)
	}
}

// serve prints the address when the registry listens.
func serve(address, storage string) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	if storage == "" {
		return errors.New("--storage is missing; name a directory")
	}
	var config net.ListenConfig
	listener, err := config.Listen(ctx, "tcp", address)
	if err != nil {
		return err
	}
	if !listener.Addr().(*net.TCPAddr).IP.IsLoopback() {
		return fmt.Errorf("%s is not a loopback address: nothing protects what the registry holds", address)
	}
	logrus.SetOutput(io.Discard) // a line for each request
	server := &http.Server{
		Handler: handlers.NewApp(ctx, &configuration.Configuration{
			Storage: configuration.Storage{"filesystem": configuration.Parameters{"rootdirectory": storage}},
		}),
		ReadHeaderTimeout: time.Minute,
	}
	context.AfterFunc(ctx, func() { _ = server.Close() })
	fmt.Println(listener.Addr())
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}
