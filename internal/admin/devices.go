package admin

import (
	nethttp "net/http"
	"time"
)

// Device is one device, as JSON. What is of a session is missing if it has none.
type Device struct {
	Device    string `json:"device"`
	Transport string `json:"transport"`
	Online    bool   `json:"online"`
	// RemoteAddr to ConnectedAt tell the session, as its connected event did.
	RemoteAddr  string     `json:"remote_addr,omitempty"`
	Epoch       uint64     `json:"epoch,omitempty"`
	ConnectedAt *time.Time `json:"connected_at,omitempty"`
	// Waiting and WaitingBytes are commands that aren't wholly written yet, Asked those whose answer is waited for.
	Waiting      int `json:"waiting"`
	WaitingBytes int `json:"waiting_bytes"`
	Asked        int `json:"asked"`
	// Known says that the inventory lists it, with these labels.
	Known  bool              `json:"known"`
	Labels map[string]string `json:"labels,omitempty"`
}

// Fleet is the JSON of /api/v1/devices.
type Fleet struct {
	Host    string    `json:"host"`
	Time    time.Time `json:"time"`
	Devices []Device  `json:"devices"`
}

// devices shows the devices that are connected or in the inventory.
func (s *Server) devices(w nethttp.ResponseWriter, _ *nethttp.Request) {
	fleet := Fleet{Host: s.config.Host, Time: time.Now(), Devices: s.config.Devices()}
	if fleet.Devices == nil {
		fleet.Devices = []Device{}
	}
	answerJSON(w, nethttp.StatusOK, fleet)
}
