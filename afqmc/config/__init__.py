"""Configs: composed by Hydra over a typed schema, checked, saved and loaded."""

from afqmc.config.compose import compose as compose
from afqmc.config.compose import drop_hydra_node as drop_hydra_node
from afqmc.config.compose import load as load
from afqmc.config.compose import parse as parse
from afqmc.config.compose import register as register
from afqmc.config.compose import save as save
from afqmc.config.compose import slug as slug
from afqmc.config.compose import to_config as to_config
from afqmc.config.compose import to_container as to_container
from afqmc.config.compose import to_yaml as to_yaml
from afqmc.config.compose import with_absolute_paths as with_absolute_paths
from afqmc.config.dataset_source import check_source as check_source
from afqmc.config.dataset_source import default_dataset_url as default_dataset_url
from afqmc.config.schema import Config as Config
from afqmc.config.schema import check_config as check_config
from afqmc.utils.command_help import conf_dir as conf_dir
