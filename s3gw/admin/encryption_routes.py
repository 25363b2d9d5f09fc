"""The rows of encryption keys and of compression."""

from __future__ import annotations

from s3gw.admin import encryption, encryption_models
from s3gw.admin.models import BucketPath
from s3gw.admin.row import Handler, Row


def _key_action(method: str, name: str, text: str, handler: Handler) -> Row:
    return Row(
        method,
        f"/admin/kms/keys/{{kms_key}}/{name}",
        f"{name}KmsKey",
        text,
        handler,
        encryption_models.Key,
        path_type=encryption_models.KeyPath,
        conflicts=name == "rotate",
    )


ENCRYPTION_ROWS: tuple[Row, ...] = (
    Row(
        "GET",
        "/admin/kms/keys",
        "listKmsKeys",
        "The named keys of the built-in key store",
        encryption.list_keys,
        encryption_models.Keys,
    ),
    Row(
        "POST",
        "/admin/kms/keys",
        "createKmsKey",
        "Make a named key",
        encryption.create_key,
        encryption_models.Key,
        body_type=encryption_models.CreateKey,
        conflicts=True,
    ),
    Row(
        "GET",
        "/admin/kms/keys/{kms_key}",
        "getKmsKey",
        "One named key",
        encryption.show_key,
        encryption_models.Key,
        path_type=encryption_models.KeyPath,
    ),
    _key_action(
        "POST",
        "rotate",
        "Give a named key a new version; the former ones still open",
        encryption.rotate_key,
    ),
    _key_action(
        "POST",
        "enable",
        "Let a named key be used again; its deletion is taken back",
        encryption.enable_key,
    ),
    _key_action(
        "POST",
        "disable",
        "Let a named key be used no more: what is encrypted with it cannot be read",
        encryption.disable_key,
    ),
    Row(
        "POST",
        "/admin/kms/keys/{kms_key}/delete",
        "deleteKmsKey",
        "Remove a named key in some days; what is encrypted with it is lost then",
        encryption.delete_key,
        encryption_models.Key,
        path_type=encryption_models.KeyPath,
        body_type=encryption_models.DeleteKey,
    ),
    Row(
        "GET",
        "/admin/kms/master-keys",
        "getMasterKeys",
        "The master keys by their ids, and how far wrapping anew has come",
        encryption.master_keys,
        encryption_models.MasterKeys,
    ),
    Row(
        "POST",
        "/admin/kms/rewrap",
        "rewrapDataKeys",
        "Wrap all data keys anew under the newest keys, without touching data",
        encryption.rewrap,
        encryption_models.Rewrap,
        conflicts=True,
    ),
    Row(
        "GET",
        "/admin/buckets/{bucket}/compression",
        "getCompression",
        "How new objects of a bucket are compressed",
        encryption.show_compression,
        encryption_models.Compression,
        path_type=BucketPath,
    ),
    Row(
        "PUT",
        "/admin/buckets/{bucket}/compression",
        "setCompression",
        "Compress new objects of a bucket, or no more",
        encryption.set_compression,
        encryption_models.Compression,
        path_type=BucketPath,
        body_type=encryption_models.SetCompression,
    ),
)
KEY_EXAMPLES = {"kms_key": "default"}
