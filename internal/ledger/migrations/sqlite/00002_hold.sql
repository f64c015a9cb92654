-- +goose Up
-- JSON: the message itself, as long as the ledger owns it. State 4 is held.
ALTER TABLE ledger ADD COLUMN message BLOB;

-- +goose Down
ALTER TABLE ledger DROP COLUMN message;
