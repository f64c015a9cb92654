// Package goplugin measures handlers that are processes: the host's own kind, and next to it the
// same handler under hashicorp/go-plugin over gRPC. It is a module of its own, so that the host
// needs neither.
package goplugin

import (
	"context"
	"os"
	"os/exec"
	"testing"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/go-plugin"
	"google.golang.org/grpc"

	"github.com/pentrough/pentrough/handlers"
	"github.com/pentrough/pentrough/handlers/serve"
)

// kindOf is the variable that makes a plugin of the test's program: of the host's kind, or of the
// peer's.
const kindOf = "PENTROUGH_BENCH_KIND"

func TestMain(m *testing.M) {
	switch os.Getenv(kindOf) {
	case "process":
		serve.Main("echo")
	case "peer":
		plugin.Serve(&plugin.ServeConfig{HandshakeConfig: handshake, Plugins: plugins, GRPCServer: plugin.DefaultGRPCServer})
	default:
		os.Exit(m.Run())
	}
}

// echo is the handler: it answers with the payload and one key of the metadata.
type echo struct{}

func init() {
	handlers.Register(handlers.Plugin{
		Name: "echo", Summary: "Answers with what it got.", Description: "Answers with what it got.", Config: func() handlers.Config { return &echo{} },
	})
}

func (*echo) New(handlers.Env) (handlers.Handler, error) { return &echo{}, nil }

func (*echo) Handle(msg *message.Message) ([]*message.Message, error) {
	if string(msg.Payload) == "die" {
		os.Exit(7)
	}
	out := message.NewMessage(msg.UUID, msg.Payload)
	out.Metadata = message.Metadata{"device": msg.Metadata["device"]}
	return []*message.Message{out}, nil
}

var (
	handshake = plugin.HandshakeConfig{ProtocolVersion: 1, MagicCookieKey: "PENTROUGH_BENCH", MagicCookieValue: "1"}
	plugins   = map[string]plugin.Plugin{"handler": &peerPlugin{}}
)

// peerPlugin is the same handler as a plugin of go-plugin.
type peerPlugin struct{ plugin.NetRPCUnsupportedPlugin }

func (*peerPlugin) GRPCServer(_ *plugin.GRPCBroker, s *grpc.Server) error {
	RegisterHandlerServer(s, &peerServer{})
	return nil
}

func (*peerPlugin) GRPCClient(_ context.Context, _ *plugin.GRPCBroker, c *grpc.ClientConn) (any, error) {
	return NewHandlerClient(c), nil
}

type peerServer struct{ UnimplementedHandlerServer }

func (*peerServer) Handle(_ context.Context, r *Request) (*Response, error) {
	in := message.NewMessage(r.Message.Id, r.Message.Payload)
	in.Metadata = r.Message.Metadata
	out, err := (&echo{}).Handle(in)
	if err != nil {
		return nil, err
	}
	response := &Response{}
	for _, m := range out {
		response.Messages = append(response.Messages, &Message{Id: m.UUID, Payload: m.Payload, Metadata: m.Metadata})
	}
	return response, nil
}

// peerConfig is the host's side of it, as a handler.
type peerConfig struct{}

func (*peerConfig) New(handlers.Env) (handlers.Handler, error) {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), kindOf+"=peer")
	client := plugin.NewClient(&plugin.ClientConfig{
		HandshakeConfig: handshake, Plugins: plugins, Cmd: cmd, AllowedProtocols: []plugin.Protocol{plugin.ProtocolGRPC}, Logger: hclog.NewNullLogger(),
	})
	rpc, err := client.Client()
	if err != nil {
		client.Kill()
		return nil, err
	}
	h, err := rpc.Dispense("handler")
	if err != nil {
		client.Kill()
		return nil, err
	}
	return &peer{client, h.(HandlerClient)}, nil
}

type peer struct {
	client  *plugin.Client
	handler HandlerClient
}

func (p *peer) Handle(msg *message.Message) ([]*message.Message, error) {
	r, err := p.handler.Handle(msg.Context(), &Request{Message: &Message{Id: msg.UUID, Payload: msg.Payload, Metadata: msg.Metadata}})
	if err != nil {
		return nil, err
	}
	out := make([]*message.Message, len(r.Messages))
	for i, m := range r.Messages {
		out[i] = message.NewMessage(m.Id, m.Payload)
		out[i].Metadata = m.Metadata
	}
	return out, nil
}

func (p *peer) Close() error {
	p.client.Kill()
	return nil
}
