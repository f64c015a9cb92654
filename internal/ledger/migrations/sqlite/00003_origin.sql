-- +goose Up
-- JSON: where the result goes if the source doesn't deliver the message again; null once confirmed.
ALTER TABLE ledger ADD COLUMN origin BLOB;

-- +goose Down
ALTER TABLE ledger DROP COLUMN origin;
