package admin

import (
	nethttp "net/http"
	"time"
)

// Device is one device, as JSON. An offline device has no fields of a session.
type Device struct {
	Device    string `json:"device"`
	Transport string `json:"transport"`
	Online    bool   `json:"online"`
	// RemoteAddr, Epoch and ConnectedAt are of the session, as in its event connected.
	RemoteAddr  string     `json:"remote_addr,omitempty"`
	Epoch       uint64     `json:"epoch,omitempty"`
	ConnectedAt *time.Time `json:"connected_at,omitempty"`
	// Carrier is the device whose connection an attached device shares. Then the next three fields
	// are those of the connection.
	Carrier string `json:"carrier,omitempty"`
	// Waiting and WaitingBytes count commands that aren't completely written. Asked counts written
	// requests without an answer.
	Waiting      int `json:"waiting"`
	WaitingBytes int `json:"waiting_bytes"`
	Asked        int `json:"asked"`
	// Known says that the device is in the inventory, with these labels.
	Known  bool              `json:"known"`
	Labels map[string]string `json:"labels,omitempty"`
}

// Fleet is the JSON of /api/v1/devices.
type Fleet struct {
	Host    string    `json:"host"`
	Time    time.Time `json:"time"`
	Devices []Device  `json:"devices"`
}

// devices serves the devices that are online or in the inventory.
func (s *Server) devices(w nethttp.ResponseWriter, _ *nethttp.Request) {
	fleet := Fleet{Host: s.config.Host, Time: time.Now(), Devices: s.config.Devices()}
	if fleet.Devices == nil {
		fleet.Devices = []Device{}
	}
	writeJSON(w, nethttp.StatusOK, fleet)
}
