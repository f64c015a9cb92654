package admin

import (
	"context"
	"errors"
	nethttp "net/http"
	"time"

	"github.com/pentrough/pentrough/transports/device"
)

// Gate disconnects devices for an operator. The name of a transport may be empty if the host has
// only one transport with devices.
type Gate interface {
	// Kick ends the session of a device. The error is of kind device.ErrOffline if it has none.
	Kick(transport, device, reason string) (Kicked, error)
	// Ban bans a device. The error is of kind device.ErrManyBans if there are too many bans.
	Ban(ctx context.Context, transport string, ban device.Ban) (Ban, error)
	// Unban ends a ban. The error is of kind device.ErrNotBanned if there is none.
	Unban(ctx context.Context, transport, device string) (Ban, error)
	// Bans returns the bans in force, in the order in which they are shown.
	Bans() []Ban
}

// Kicked is a session that an operator has ended, as JSON.
type Kicked struct {
	Device     string `json:"device"`
	Transport  string `json:"transport"`
	RemoteAddr string `json:"remote_addr"`
	Epoch      uint64 `json:"epoch"`
}

// Ban is the ban of a device, as JSON.
type Ban struct {
	Device    string    `json:"device"`
	Transport string    `json:"transport"`
	Since     time.Time `json:"since"`
	// Until is when the ban ends; nil means never.
	Until  *time.Time `json:"until,omitempty"`
	Reason string     `json:"reason,omitempty"`
	*BanOutcome
}

// BanOutcome says what a ban did.
type BanOutcome struct {
	// Replaced says that the device was banned before, and Kicked that it was connected.
	Replaced bool `json:"replaced"`
	Kicked   bool `json:"kicked"`
	// Stored says that the ban survives a restart of the host. Otherwise Problem says why it
	// doesn't.
	Stored  bool   `json:"stored"`
	Problem string `json:"problem,omitempty"`
}

// BanList is the JSON of /api/v1/devices/bans.
type BanList struct {
	Host string    `json:"host"`
	Time time.Time `json:"time"`
	Bans []Ban     `json:"bans"`
}

// deviceQuery returns the device and the transport that a request names. If the device is missing,
// it answers the request and returns false.
func deviceQuery(w nethttp.ResponseWriter, r *nethttp.Request) (device, transport string, ok bool) {
	query := r.URL.Query()
	if device = query.Get("device"); device == "" {
		writeError(w, nethttp.StatusBadRequest, "the device is missing; add ?device=NAME")
		return "", "", false
	}
	return device, query.Get("transport"), true
}

// kick ends the session of a device.
func (s *Server) kick(w nethttp.ResponseWriter, r *nethttp.Request) {
	if name, transport, ok := deviceQuery(w, r); ok {
		kicked, err := s.config.Gate.Kick(transport, name, r.URL.Query().Get("reason"))
		s.answerGate(w, kicked, err)
	}
}

// ban bans a device.
func (s *Server) ban(w nethttp.ResponseWriter, r *nethttp.Request) {
	name, transport, ok := deviceQuery(w, r)
	if !ok {
		return
	}
	query := r.URL.Query()
	ban := device.Ban{Device: name, Reason: query.Get("reason"), Since: time.Now()}
	if query.Has("for") {
		lasts, err := time.ParseDuration(query.Get("for"))
		if err != nil || lasts <= 0 {
			writeError(w, nethttp.StatusBadRequest, "for isn't a time above 0, such as 90m or 24h")
			return
		}
		ban.Until = ban.Since.Add(lasts)
	}
	banned, err := s.config.Gate.Ban(r.Context(), transport, ban)
	s.answerGate(w, banned, err)
}

// unban ends the ban of a device.
func (s *Server) unban(w nethttp.ResponseWriter, r *nethttp.Request) {
	if name, transport, ok := deviceQuery(w, r); ok {
		ban, err := s.config.Gate.Unban(r.Context(), transport, name)
		s.answerGate(w, ban, err)
	}
}

// bans serves the bans in force.
func (s *Server) bans(w nethttp.ResponseWriter, _ *nethttp.Request) {
	list := BanList{Host: s.config.Host, Time: time.Now(), Bans: s.config.Gate.Bans()}
	if list.Bans == nil {
		list.Bans = []Ban{}
	}
	writeJSON(w, nethttp.StatusOK, list)
}

// answerGate answers with what the gate did, or with its error.
func (s *Server) answerGate(w nethttp.ResponseWriter, done any, err error) {
	switch {
	case err == nil:
		writeJSON(w, nethttp.StatusOK, done)
	case errors.Is(err, device.ErrOffline), errors.Is(err, device.ErrNotBanned):
		writeError(w, nethttp.StatusNotFound, s.redact(err.Error()))
	case errors.Is(err, device.ErrManyBans):
		writeError(w, nethttp.StatusConflict, s.redact(err.Error()))
	default:
		writeError(w, nethttp.StatusBadRequest, s.redact(err.Error()))
	}
}
