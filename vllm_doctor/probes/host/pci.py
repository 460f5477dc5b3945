"""GPUs as the bus and the device files show them, whether or not a driver works."""

from pathlib import Path

from vllm_doctor.facts import PciGpu, Unknown
from vllm_doctor.probes.host import files

VENDORS = {"10de": "nvidia", "1002": "amd", "8086": "intel"}

# Intel builds hundreds of other PCI devices: only those are looked at whose driver, if any, drives GPUs.
_INTEL_DRIVERS = ("", "i915", "xe", "vfio-pci")

MAXIMUM_GPUS = 64
MAXIMUM_DEVICE_FILES = 128

_SYSFS = "/sys/bus/pci/devices"


def device_files() -> tuple[str, ...]:
    """The device files of NVIDIA, AMD, Intel and WSL GPUs in /dev, sorted."""
    found = []
    for folder, wanted in (("/dev", ("nvidia", "dxg", "kfd")), ("/dev/dri", ("renderD",))):
        try:
            names = [entry.name for entry in Path(folder).iterdir()]
        except OSError:
            continue
        found += [f"{folder}/{name}" for name in names if name.startswith(wanted)]
    return tuple(sorted(found)[:MAXIMUM_DEVICE_FILES])


def candidates(table: str) -> set[str]:
    """The `BUS:DEVICE.FUNCTION` of devices that may be GPUs, of a /proc/bus/pci/devices (which leaves out domains)."""
    found = set()
    for line in table.split("\n"):
        words = line.split("\t")
        if len(words) < 2 or len(words[0]) != 4 or words[1][:4] not in VENDORS:
            continue
        driver = words[-1].strip() if len(words) > 17 else ""
        if words[1][:4] == "8086" and driver not in _INTEL_DRIVERS:
            continue
        try:
            place = int(words[0], 16)
        except ValueError:
            continue
        found.add(f"{place >> 8:02x}:{place >> 3 & 31:02x}.{place & 7}")
    return found


def gpus() -> tuple[PciGpu, ...] | Unknown:
    """The display and 3D controllers on the bus (PCI class 03)."""
    try:
        addresses = sorted(entry.name for entry in Path(_SYSFS).iterdir())
    except OSError as problem:
        return Unknown(f"the PCI bus cannot be read: {problem.strerror}")
    table = files.text("/proc/bus/pci/devices", 1_048_576)
    if table is not None:
        wanted = candidates(table)
        addresses = [a for a in addresses if a.partition(":")[2] in wanted]
    found = (_gpu(address) for address in addresses)
    return tuple(gpu for gpu in found if gpu is not None)[:MAXIMUM_GPUS]


def _gpu(address: str) -> PciGpu | None:
    folder = f"{_SYSFS}/{address}"
    vendor = VENDORS.get((files.text(f"{folder}/vendor", 16) or "")[2:])
    if vendor is None or not (files.text(f"{folder}/class", 16) or "").startswith("0x03"):
        return None
    try:
        driver = Path(f"{folder}/driver").readlink().name
    except OSError:
        driver = ""
    device = (files.text(f"{folder}/device", 16) or "")[2:]
    return PciGpu(address=address, vendor=vendor, device_id=device, driver=driver or None)


def kernel_module_version() -> str | None:
    """The version of the loaded NVIDIA kernel module, None where none is loaded."""
    if version := files.text("/sys/module/nvidia/version", 64):
        return version
    return version_in(files.text("/proc/driver/nvidia/version", 1024) or "")


def version_in(banner: str) -> str | None:
    """The version in the text of /proc/driver/nvidia/version: the first word of its first line like 535.104.05."""
    for word in banner.partition("\n")[0].split():
        parts = word.split(".")
        if len(parts) in (2, 3) and all(part.isascii() and part.isdecimal() for part in parts):
            return word
    return None
